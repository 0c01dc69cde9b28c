"""Publishing a run: its model directory, model card, and the Hub."""
