"""The Kronos model in plain PyTorch."""

from kronos_lightning.model.predictor import Kronos, token_losses
from kronos_lightning.model.pretrained import CheckpointError
from kronos_lightning.model.tokenizer import KronosTokenizer, TokenizerOutput

__all__ = ["CheckpointError", "Kronos", "KronosTokenizer", "TokenizerOutput", "token_losses"]
