"""Optional scaling of batch size and learning rate to the number of processes."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from kronos_lightning.errors import KronosError


class ScalingError(KronosError, ValueError):
    """Error if a batch cannot be divided equally."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """Size and learning rate of an optimiser step.

    batch_size: windows per process and batch.
    processes: number of processes on all machines.
    accumulated: batches per step.
    learning_rate: peak of the schedule.
    """

    batch_size: int
    processes: int
    accumulated: int
    learning_rate: float

    @property
    def global_batch(self) -> int:
        """Number of windows per optimiser step."""
        return self.batch_size * self.processes * self.accumulated

    def shared(self) -> "Scale":
        """Return a copy with `batch_size` divided among all processes and accumulated batches of a step.

        Raises:
            ScalingError: `batch_size` cannot be divided equally.
        """
        share, rest = divmod(self.batch_size, self.processes * self.accumulated)
        if rest or not share:
            raise ScalingError(
                f"scaling.batch=global: data.batch_size {self.batch_size} is not divisible by {self.processes} "
                f"process(es) × {self.accumulated} batch(es) per step"
            )
        return replace(self, batch_size=share)

    def with_rate(self, rule: Literal["none", "sqrt", "linear"], reference_batch: int) -> "Scale":
        """Return a copy with the learning rate scaled by a rule from `reference_batch` windows to the global batch.

        "linear" multiplies by the ratio of the two batches, "sqrt" by its square root, "none" by 1.
        """
        times = self.global_batch / reference_batch
        factor = {"none": 1.0, "sqrt": math.sqrt(times), "linear": times}[rule]
        return replace(self, learning_rate=self.learning_rate * factor)

    def as_dict(self) -> dict[str, int | float]:
        """Return these values and the global batch for `run_info.json`."""
        return asdict(self) | {"global_batch": self.global_batch}
