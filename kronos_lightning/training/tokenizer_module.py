"""Fine-tuning the tokenizer. Shape letters: B windows, W rows of a window, h horizon."""

from dataclasses import replace

from torch import Tensor

from kronos_lightning.data import WindowBatch
from kronos_lightning.model import KronosTokenizer
from kronos_lightning.training.recipe import Recipe
from kronos_lightning.training.stage_module import StageModule
from kronos_lightning.training.throughput import training_flops


class TokenizerModule(StageModule):
    """Reconstruct windows through the code.

    Training loss: mean of the coarse and the full reconstruction error and the quantiser loss, halved. Validation
    loss: squared error of the full reconstruction on the target rows.
    """

    def __init__(
        self,
        tokenizer: KronosTokenizer,
        recipe: Recipe,
    ):
        super().__init__(tokenizer, recipe, ("loss", "mse_coarse"))
        self.tokenizer = tokenizer

    @property
    def trained(self) -> KronosTokenizer:
        return self.tokenizer

    def flops(self, rows: int) -> float:
        again = self.tokenizer.decoder, self.tokenizer.head  # decoding the coarse and the whole code
        return sum(training_flops(part, rows) for part in (self.tokenizer, *again))

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        output = self.tokenizer(batch.x)
        first = self.lookback if self.recipe.regularization.loss_rows == "horizon" else 0
        # What the quantiser adds is about the use of its codes, in all rows.
        output = replace(output, full=output.full[:, first:], coarse=output.coarse[:, first:])
        x = batch.x[:, first:]
        loss = self.regularised(output.loss(x))
        self.log_training(
            loss,
            mse_full=(output.full - x).square().mean(),
            mse_coarse=(output.coarse - x).square().mean(),
            quantizer_loss=output.quantizer_loss,
        )
        return loss

    def validation_step(self, batch: WindowBatch, batch_idx: int) -> None:
        output, target = self.judged(batch.x), batch.x[:, self.lookback :]
        self.update_validation(
            self.judged.encode(batch.x, half=True),
            loss=(output.full[:, self.lookback :] - target).square().mean(dim=(1, 2)),
            mse_coarse=(output.coarse[:, self.lookback :] - target).square().mean(dim=(1, 2)),
        )

    def validation_paths(self, batch: WindowBatch, network: KronosTokenizer) -> Tensor:
        """The reconstruction, as the one path: it shows what the code can express."""
        full = network(batch.x).full
        return full[:, None, self.lookback : self.lookback + self.horizon]
