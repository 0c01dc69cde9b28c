"""Sweeps: trials of one command, their search, and what came out."""
