"""From candles to sample paths of future candles.

Shape letters: N series, S sample paths, T context candles, h horizon, C = 6 features.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from kronos_lightning.data.windows import denormalise, normalise
from kronos_lightning.model import Kronos, KronosTokenizer

from .decoding import generate_tokens
from .sampling import Sampling


@contextmanager
def eval_mode(*modules: nn.Module) -> Iterator[None]:
    """Dropout off inside, every module's mode as before outside."""
    were = [(module, module.training) for root in modules for module in root.modules()]
    for root in modules:
        root.eval()
    try:
        yield
    finally:
        for module, training in were:
            module.training = training


@dataclass
class Forecaster:
    """A tokenizer and a predictor that belong together, and how to sample from them.

    max_context: candles the predictor sees at most; earlier ones are cut off before normalisation.
    clip: bound of the normalised values, as in training.
    """

    tokenizer: KronosTokenizer
    predictor: Kronos
    max_context: int
    clip: float = 5.0
    sampling: Sampling = field(default_factory=Sampling)
    trained_positions: bool = False

    def __post_init__(self) -> None:
        theirs, ours = (
            (self.tokenizer.s1_bits, self.tokenizer.s2_bits),
            (self.predictor.s1_bits, self.predictor.s2_bits),
        )
        if theirs != ours:
            raise ValueError(f"tokenizer with {theirs} bits and predictor with {ours} bits do not belong together")

    def sample_paths(
        self,
        candles: Tensor,
        stamp: Tensor,
        future_stamp: Tensor,
        num_paths: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """Sample future candles in the candles' own units.

        Args:
            candles: float ``(N, T, C)``, the known candles; not changed.
            stamp, future_stamp: ``(N, T, 5)`` and ``(N, h, 5)`` time features.
            num_paths: S.
            generator: seeded generator for repeatable paths.

        Returns:
            ``(N, S, h, C)``.
        """
        candles, stamp = candles[:, -self.max_context :], stamp[:, -self.max_context :]
        x, mean, std = normalise(candles, candles.size(1), self.clip)
        paths = self.sample_normalised(x, stamp, future_stamp, num_paths, generator)
        return denormalise(paths, mean[:, None], std[:, None])

    @torch.no_grad()
    def sample_normalised(
        self,
        x: Tensor,
        stamp: Tensor,
        future_stamp: Tensor,
        num_paths: int,
        generator: torch.Generator | None = None,
    ) -> Tensor:
        """As `sample_paths`, on candles that are already normalised, giving normalised paths."""
        with eval_mode(self.tokenizer, self.predictor):
            ids = self.tokenizer.encode(x, half=True)
            s1_ids, s2_ids, stamp, future_stamp = (
                part.repeat_interleave(num_paths, dim=0) for part in (*ids, stamp, future_stamp)
            )
            ids = generate_tokens(
                self.predictor,
                s1_ids,
                s2_ids,
                stamp,
                future_stamp,
                self.sampling,
                self.max_context,
                self.trained_positions,
                generator,
            )
            decoded = self.tokenizer.decode(tuple(part[:, -self.max_context :] for part in ids), half=True)
        horizon = future_stamp.size(1)
        return decoded[:, -horizon:].unflatten(0, (x.size(0), num_paths))
