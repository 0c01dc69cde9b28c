"""Runs: their folders, the objects they are built from, and the origin of their weights."""
