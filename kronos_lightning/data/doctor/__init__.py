"""The doctor: what is wrong with a candle file, before anything is trained on it."""

from kronos_lightning.data.doctor.diagnosis import Diagnosis, diagnose
from kronos_lightning.data.doctor.finding import Finding

__all__ = ["Diagnosis", "Finding", "diagnose"]
