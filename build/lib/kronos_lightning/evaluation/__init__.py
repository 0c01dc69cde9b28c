"""Honest measurement: rolling forecasts, metrics beside baselines, a report."""
