"""Publication of a run: its model directory, its model card, and the Hub."""
