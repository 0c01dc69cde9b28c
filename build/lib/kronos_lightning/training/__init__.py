"""Fine-tuning of tokenizer and predictor with Lightning."""

from .predictor_module import PredictorModule
from .tokenizer_module import TokenizerModule

__all__ = ["PredictorModule", "TokenizerModule"]
