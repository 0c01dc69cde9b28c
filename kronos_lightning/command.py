"""What the commands of this project share: errors in one line."""

import functools
import os
import sys
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from .config import ConfigError
from .data import CandleError
from .model import CheckpointError
from .runs import RunError
from .training.stage_module import ScheduleError

EXPECTED = (CandleError, CheckpointError, ConfigError, RunError, ScheduleError, OmegaConfBaseException,
            InstantiationException, OSError)  # fmt: skip


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """End with one line and exit code 1 for errors that a user can mend; HYDRA_FULL_ERROR=1 shows the traceback."""

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return main(*args, **kwargs)
        except EXPECTED as error:
            if os.environ.get("HYDRA_FULL_ERROR"):
                raise
            print(f"error: {' '.join(str(error).split())}", file=sys.stderr)
            sys.exit(1)

    return wrapped
