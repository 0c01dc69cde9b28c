"""Error handling of the commands: one line for errors that a user can fix, a traceback for all others."""

import functools
import logging
import os
import re
import sys
import warnings
from collections.abc import Callable
from typing import Any

from hydra.errors import InstantiationException
from omegaconf.errors import OmegaConfBaseException

from kronos_lightning.errors import KronosError
from kronos_lightning.settings.text import shown

EXPECTED = (KronosError, OmegaConfBaseException, InstantiationException, OSError)


def silence_noise() -> None:
    """Silence library messages that appear in every run and that no user can act on."""
    for message in (
        ".*in eval mode at the start of training.*",  # the frozen tokenizer
        ".*You have overridden `on_after_batch_transfer`.*",
        ".*isinstance\\(treespec, LeafSpec\\).*",
        ".*sync_dist=True.*",  # validation means are already summed over the processes
        ".*`broadcast_buffers` is deprecated.*",
        ".*does not have many workers.*",  # gathering a batch costs less than sending it between processes
        ".*The number of training batches.*is smaller than the logging interval.*",
        ".*Checkpoint directory .* exists and is not empty.*",  # it holds the predictor's tokenizer
        ".*Experiment logs directory .* exists.*",
        ".*your dataloader is not resumable.*",  # it is resumable: LastCheckpoint restores its position
        ".*FSDP2-wrapped module .* returned a view.*",  # nothing changes the view in place
        ".*predict returned None.*",  # the module stores the paths itself
    ):
        warnings.filterwarnings("ignore", message=message)
    logging.getLogger("lightning.pytorch.utilities.rank_zero").addFilter(
        lambda record: (
            not record.getMessage().startswith(("💡", "GPU available", "TPU available", "HPU available", "Loading `"))
        )
    )
    logging.getLogger("huggingface_hub").setLevel(logging.ERROR)  # hide retries; a failure is reported in one line
    ranks = (os.environ.get(name) for name in ("RANK", "LOCAL_RANK", "SLURM_PROCID"))  # torchrun, Lightning, srun
    if int(next((rank for rank in ranks if rank is not None), 0)) > 0:
        logging.getLogger().setLevel(logging.WARNING)


def one_line_errors(main: Callable[..., Any]) -> Callable[..., Any]:
    """Print one line and exit with code 1 for errors that a user can fix; HYDRA_FULL_ERROR=1 shows the traceback."""

    @functools.wraps(main)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        silence_noise()
        try:
            return main(*args, **kwargs)
        except Exception as error:
            if isinstance(error, InstantiationException) and isinstance(error.__cause__, EXPECTED):
                error = error.__cause__  # this project's message is clearer
            if os.environ.get("HYDRA_FULL_ERROR") or not isinstance(error, EXPECTED):
                raise
            print(f"error: {' '.join(shown(_sentence(error)).split())}", file=sys.stderr)
            sys.exit(1)
        except KeyboardInterrupt:
            print("stopped", file=sys.stderr)
            sys.exit(130)

    return wrapped


def _sentence(error: Exception) -> str:
    """Return the message of an error; for an error inside a Hydra call, only the key and the inner message."""
    if not isinstance(error, InstantiationException) or error.__cause__ is None:
        return str(error)
    key = re.search(r"full_key: (\S+)", str(error))
    message = f"{key[1]}: {error.__cause__}" if key else str(error.__cause__)
    return f"{message} Use trainer=cpu or trainer=auto" if "No supported gpu" in message else message
