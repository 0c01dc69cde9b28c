"""Sweeps: trials of one command, their search, and their results."""
