"""Presentation of results: sentences, tables, plots, HTML pages, and machine-readable files."""
