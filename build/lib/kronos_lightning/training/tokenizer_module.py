"""Fine-tuning the tokenizer. Shape letters: B windows, W rows of a window, h horizon."""

from torch import Tensor

from kronos_lightning.data import WindowBatch
from kronos_lightning.model import KronosTokenizer

from .optimization import Optimization
from .stage_module import StageModule


class TokenizerModule(StageModule):
    """Reconstruct windows through the code.

    Training loss: mean of the coarse and the full reconstruction error and the quantiser loss, halved. Validation
    loss: squared error of the full reconstruction on the target rows.
    """

    def __init__(self, tokenizer: KronosTokenizer, optimization: Optimization, lookback: int, horizon: int):
        bits = tokenizer.s1_bits, tokenizer.s2_bits
        super().__init__(bits, optimization, lookback, ("loss", "mse_coarse"))
        self.tokenizer, self.horizon = tokenizer, horizon

    @property
    def trained(self) -> KronosTokenizer:
        return self.tokenizer

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        output = self.tokenizer(batch.x)
        loss = output.loss(batch.x)
        self.log_training(
            loss,
            mse_full=(output.full - batch.x).square().mean(),
            mse_coarse=(output.coarse - batch.x).square().mean(),
            quantizer_loss=output.quantizer_loss,
        )
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        output, target = self.tokenizer(batch.x), batch.x[:, self.lookback :]
        self.update_validation(
            self.tokenizer.encode(batch.x, half=True),
            loss=(output.full[:, self.lookback :] - target).square().mean(dim=(1, 2)),
            mse_coarse=(output.coarse[:, self.lookback :] - target).square().mean(dim=(1, 2)),
        )

    def validation_paths(self, batch: WindowBatch) -> Tensor:
        """The reconstruction, as the one path: it shows what the code can express."""
        full = self.tokenizer(batch.x).full
        return full[:, None, self.lookback : self.lookback + self.horizon]
