"""Validation metrics logged by each stage, and the direction in which each one improves."""

METRICS = {  # metrics that may select the checkpoint and stop training early
    "tokenizer": {
        "val/loss": "min",
        "val/mse_coarse": "min",
        "val/codebook_usage_s1": "max",
        "val/codebook_usage_s2": "max",
        "val/crps": "min",
        "val/direction_accuracy": "max",
    },
    "predictor": {
        "val/loss": "min",
        "val/ce_s1": "min",
        "val/ce_s2": "min",
        "val/crps": "min",
        "val/direction_accuracy": "max",
    },
}
NOT_MONITORABLE = {  # metrics that are logged but cannot be monitored, with the reason
    "val/coverage_90": "it shows how wide the paths are, not how accurate; val/crps measures both",
    "val/direction_majority": "it does not depend on the model",
    "val/codebook_usage_s1": "it depends on the frozen tokenizer only",
    "val/codebook_usage_s2": "it depends on the frozen tokenizer only",
}
SAMPLE_PATH_METRICS = {"val/crps", "val/direction_accuracy"}  # measured by callbacks.validation_paths


def better(metric: str) -> str:
    """Return the direction in which a metric improves: "min" or "max"; "min" for unknown names."""
    return next((modes[metric] for modes in METRICS.values() if metric in modes), "min")
