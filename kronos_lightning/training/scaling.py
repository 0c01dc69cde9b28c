"""Batch and learning rate by the number of processes, when asked."""

import math
from dataclasses import asdict, dataclass, replace
from typing import Literal

from kronos_lightning.errors import KronosError


class ScalingError(KronosError, ValueError):
    """A batch cannot be shared equally."""


@dataclass(frozen=True, kw_only=True)
class Scale:
    """What a step is made of.

    batch_size: windows a process and batch.
    processes: of all machines.
    accumulated: batches a step.
    learning_rate: peak of the schedule.
    """

    batch_size: int
    processes: int
    accumulated: int
    learning_rate: float

    @property
    def global_batch(self) -> int:
        """Windows a step."""
        return self.batch_size * self.processes * self.accumulated

    def shared(self) -> "Scale":
        """`batch_size` read as that of a whole step, each process and batch with its share.

        Raises:
            ScalingError: it cannot be divided.
        """
        share, rest = divmod(self.batch_size, self.processes * self.accumulated)
        if rest or not share:
            raise ScalingError(
                f"scaling.batch=global: data.batch_size {self.batch_size} cannot be shared equally by {self.processes} "
                f"process(es) with {self.accumulated} batch(es) a step"
            )
        return replace(self, batch_size=share)

    def with_rate(self, rule: Literal["none", "sqrt", "linear"], reference_batch: int) -> "Scale":
        """`learning_rate` read as that for steps of `reference_batch` windows: it grows with the batch or its root."""
        times = self.global_batch / reference_batch
        factor = {"none": 1.0, "sqrt": math.sqrt(times), "linear": times}[rule]
        return replace(self, learning_rate=self.learning_rate * factor)

    def about(self) -> dict[str, int | float]:
        """For `run_info.json`."""
        return asdict(self) | {"global_batch": self.global_batch}
