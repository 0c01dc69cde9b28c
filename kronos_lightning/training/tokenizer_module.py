"""Fine-tuning of the tokenizer. Shape letters: B windows, W rows of a window, h horizon."""

from dataclasses import replace

from torch import Tensor

from kronos_lightning.data import WindowBatch
from kronos_lightning.model import KronosTokenizer
from kronos_lightning.training.recipe import Recipe
from kronos_lightning.training.stage_module import StageModule
from kronos_lightning.training.throughput import training_flops


class TokenizerModule(StageModule):
    """Lightning module that trains the tokenizer to reconstruct windows from their tokens.

    Training loss: half the sum of the coarse and the full reconstruction error and the quantiser loss. Validation
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
        again = self.tokenizer.decoder, self.tokenizer.head  # decodes twice: the coarse and the full tokens
        return sum(training_flops(part, rows) for part in (self.tokenizer, *again))

    def training_step(self, batch: WindowBatch, batch_idx: int) -> Tensor:
        output = self.tokenizer(batch.x)
        first = self.lookback if self.recipe.regularization.loss_rows == "horizon" else 0
        # The quantiser loss covers all rows because it regularises the use of the codes.
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
        output, target = self.eval_network(batch.x), batch.x[:, self.lookback :]
        self.update_validation(
            self.eval_network.encode(batch.x, half=True),
            loss=(output.full[:, self.lookback :] - target).square().mean(dim=(1, 2)),
            mse_coarse=(output.coarse[:, self.lookback :] - target).square().mean(dim=(1, 2)),
        )

    def validation_paths(self, batch: WindowBatch, network: KronosTokenizer) -> Tensor:
        """Reconstruct the target rows as a single path ``(B, 1, h, 6)``, which shows what the tokens can express."""
        full = network(batch.x).full
        return full[:, None, self.lookback : self.lookback + self.horizon]
