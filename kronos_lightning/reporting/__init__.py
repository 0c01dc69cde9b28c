"""Results as people see them: sentences, tables, plots, HTML pages, and files for machines."""
