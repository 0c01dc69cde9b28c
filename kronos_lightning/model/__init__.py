"""The Kronos model, in plain torch."""

from .predictor import Kronos, token_losses
from .pretrained import CheckpointError
from .tokenizer import KronosTokenizer, TokenizerOutput

__all__ = ["CheckpointError", "Kronos", "KronosTokenizer", "TokenizerOutput", "token_losses"]
