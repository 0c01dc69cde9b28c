"""Evaluation: rolling forecasts, metrics compared with baselines, significance tests."""
