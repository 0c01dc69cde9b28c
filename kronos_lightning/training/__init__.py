"""Fine-tuning of the tokenizer and the predictor with Lightning."""

from .predictor_module import PredictorModule
from .recipe import Recipe
from .regularisers import Regulariser
from .tokenizer_module import TokenizerModule

__all__ = ["PredictorModule", "Recipe", "Regulariser", "TokenizerModule"]
