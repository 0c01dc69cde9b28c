"""Doctor: diagnosis of candle files before training."""

from kronos_lightning.data.doctor.diagnosis import Diagnosis, diagnose
from kronos_lightning.data.doctor.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
