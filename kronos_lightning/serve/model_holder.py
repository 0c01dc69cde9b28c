"""Model that the service answers with, and its replacement while the service runs."""

import logging
import threading
from pathlib import Path

from kronos_lightning.errors import KronosError
from kronos_lightning.pipeline.loaded_model import LoadedModel, load_model

from .errors import ServiceError

log = logging.getLogger("serve")


class ModelHolder:
    """Model in use, exchanged as a whole.

    Args:
        checkpoint, device, trusted_strategy: see `load_model`.

    Raises:
        KronosError: the checkpoint cannot be served.
    """

    def __init__(self, checkpoint: Path, device: str = "auto", trusted_strategy: str | None = None):
        self._arguments = checkpoint, device, trusted_strategy
        self._loading = threading.Lock()
        self.current = load_model(*self._arguments)

    def reload(self) -> LoadedModel:
        """Load the checkpoint again beside the model in use, then exchange them; requests keep their model.

        Raises:
            ServiceError: 409 if a reload is running, or if the checkpoint cannot be served; the old model stays.
        """
        if not self._loading.acquire(blocking=False):
            raise ServiceError(409, "reload_running", "another reload is running", "Wait for its end.")
        try:
            self.current = load_model(*self._arguments)
        except (KronosError, OSError) as error:
            log.warning("reload refused: %s", error)
            raise ServiceError(
                409, "reload_failed", "the checkpoint cannot be served; the old model stays", "See the service's log."
            ) from error
        finally:
            self._loading.release()
        return self.current
