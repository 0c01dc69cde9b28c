"""Prediction service: the decisions of an evaluated checkpoint over HTTP, with a dashboard."""
