"""Validation figures: which a stage logs, and which way is better."""

FIGURES = {  # what may choose the checkpoint and stop early
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
UNJUDGED = {  # logged as well, and why none of them can judge
    "val/coverage_90": "it says how sure the paths are, not how good; val/crps asks for both",
    "val/direction_majority": "the model has no part in it",
    "val/codebook_usage_s1": "the frozen tokenizer decides it",
    "val/codebook_usage_s2": "the frozen tokenizer decides it",
}
OF_PATHS = {"val/crps", "val/direction_accuracy"}  # measured by callbacks.validation_paths, as often as it says


def better(figure: str) -> str:
    """Whether a figure gets better downwards ("min") or upwards ("max")."""
    return next((modes[figure] for modes in FIGURES.values() if figure in modes), "min")
