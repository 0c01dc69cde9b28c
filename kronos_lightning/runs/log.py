"""Log file of a run."""

import logging
from logging.handlers import MemoryHandler
from pathlib import Path

from lightning.pytorch.utilities import rank_zero_only

from kronos_lightning.settings.text import LineFormatter


class RunLog:
    """Log of a run, written to its folder; includes the lines logged before the folder existed."""

    def __init__(self) -> None:
        self._buffer = MemoryHandler(capacity=10_000, flushLevel=logging.CRITICAL + 1)

    def __enter__(self) -> "RunLog":
        logging.getLogger().addHandler(self._buffer)
        return self

    @rank_zero_only
    def write_to(self, path: Path) -> None:
        """Write all lines logged so far, and every later line immediately."""
        file = logging.FileHandler(path, encoding="utf-8")
        file.setFormatter(LineFormatter("%(asctime)s %(levelname)s %(message)s"))
        self._buffer.setTarget(file)
        self._buffer.flush()
        self._buffer.flushLevel = logging.NOTSET

    def __exit__(self, *exception: object) -> None:
        logging.getLogger().removeHandler(self._buffer)
        self._buffer.close()
        if self._buffer.target is not None:
            self._buffer.target.close()
