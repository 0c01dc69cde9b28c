"""Compose and check configurations without a command."""

from kronos_lightning.config.compose import compose as composed
from kronos_lightning.config.validation import (
    check_doctor,
    check_download,
    check_evaluation,
    check_export,
    check_following,
    check_forecasting,
    check_serving,
    check_training,
)

CHECKS = {
    "train": check_training,
    "evaluate": check_evaluation,
    "forecast": check_forecasting,
    "download": check_download,
    "doctor": check_doctor,
    "export": check_export,
    "serve": check_serving,
    "live": check_following,
}

__all__ = ["CHECKS", "composed"]
