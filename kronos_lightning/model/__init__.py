"""The Kronos model, in plain torch."""

from .pretrained import CheckpointError
from .predictor import Kronos, token_losses
from .tokenizer import KronosTokenizer, TokenizerOutput

__all__ = ["CheckpointError", "Kronos", "KronosTokenizer", "TokenizerOutput", "token_losses"]
