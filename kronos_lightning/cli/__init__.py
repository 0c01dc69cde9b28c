"""Commands that a person can type."""
