"""Runs: their folders, what they are built from, where their weights come from."""
