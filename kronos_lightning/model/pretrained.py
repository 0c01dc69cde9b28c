"""Checkpoint directories with `config.json` and `model.safetensors`, local or on the Hugging Face Hub."""

import inspect
import json
import os
from pathlib import Path
from typing import Any, Self

from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from safetensors.torch import load_file

from kronos_lightning.errors import KronosError

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "training.json"  # metadata of the training, next to these files if the network was trained here


class CheckpointError(KronosError, ValueError):
    """Error for a checkpoint that cannot be found or does not fit; the message says what to do."""


class PretrainedModule(PyTorchModelHubMixin):
    """Mixin with `save_pretrained` and `push_to_hub` from huggingface_hub, and with a strict `from_pretrained`.

    Strict means: only safetensors are read (nothing is unpickled), every key must be present and fit, and no key of
    `config.json` is ignored.
    """

    @classmethod
    def from_pretrained(cls, name_or_path: str | os.PathLike, *, revision: str | None = None) -> Self:
        """Load a model in eval mode from a local directory or a Hub repository.

        Args:
            name_or_path: an existing directory, or else a Hub name such as ``NeoQuasar/Kronos-small``.
            revision: commit, tag or branch on the Hub; ignored for a directory.

        Raises:
            CheckpointError: nothing was found, the Hub is unreachable, or the files do not describe this model.
        """
        directory = Path(name_or_path).expanduser()
        if directory.is_dir():
            config_path, weights_path = directory / CONFIG_FILE, directory / WEIGHTS_FILE
        elif str(name_or_path).count("/") == 1 and not str(name_or_path).startswith((".", "/", "~")):
            config_path, weights_path = _download(str(name_or_path), revision)
        else:
            raise CheckpointError(f"{name_or_path}: no such directory (and not a Hub name of the form owner/model)")
        for path in (config_path, weights_path):
            if not path.is_file():
                raise CheckpointError(f"{path}: missing; a checkpoint directory holds {CONFIG_FILE} and {WEIGHTS_FILE}")
        try:
            config = json.loads(config_path.read_text(encoding="utf-8"))
            model = cls(**config)
        except (TypeError, ValueError) as error:
            other = _other_network(config_path, cls)
            reason = f"it describes a {other}; are tokenizer and predictor exchanged?" if other else error
            raise CheckpointError(f"{config_path}: does not describe a {cls.__name__}: {reason}") from error
        try:
            model.load_state_dict(load_file(weights_path), strict=True)
        except (RuntimeError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{weights_path}: weights do not fit a {cls.__name__}: {reason[:600]}") from error
        return model.eval()

    @property
    def config(self) -> dict:
        """Arguments of the constructor, as written to `config.json`."""
        return dict(self._hub_mixin_config)

    def config_changed(self, **changes: float) -> None:
        """Record changes made to the network after construction, so that `config.json` includes them."""
        self._hub_mixin_config = self.config | changes


def trained_with_volume(directory: Path) -> bool | None:
    """Return True if a checkpoint directory records training with volume; None without a record."""
    volume: bool | None = _record(directory).get("settings", {}).get("volume")
    return volume


def trained_representation(directory: Path) -> Any:
    """Return the representation of candles that a checkpoint directory records, as in its file; None without one."""
    return _record(directory).get("representation")


def _record(directory: Path) -> dict[str, Any]:
    try:
        record: dict[str, Any] = json.loads((directory / RECORD_FILE).read_text())
    except (FileNotFoundError, NotADirectoryError):
        return {}
    return record


def _other_network(config_path: Path, cls: type[PretrainedModule]) -> str | None:
    """Return the name of the network that a configuration describes if it is another one than `cls`."""
    try:
        keys = set(json.loads(config_path.read_text(encoding="utf-8")))
    except (TypeError, ValueError):
        return None
    others = (other for other in PretrainedModule.__subclasses__() if other is not cls)
    return next((o.__name__ for o in others if keys <= set(inspect.signature(o).parameters)), None)


def _download(name: str, revision: str | None) -> tuple[Path, Path]:
    try:
        config, weights = (Path(hf_hub_download(name, file, revision=revision)) for file in (CONFIG_FILE, WEIGHTS_FILE))
    except (LocalEntryNotFoundError, HfHubHTTPError, HFValidationError, OSError) as error:
        reason = str(error).strip().splitlines()[0]
        at = f" at revision {revision}" if revision else ""
        raise CheckpointError(
            f"cannot get {name}{at} from the Hugging Face Hub ({type(error).__name__}: {reason}). Ways out: "
            f"(1) a local copy: model.pretrained.tokenizer=DIR model.pretrained.predictor=DIR; "
            f"(2) another endpoint: set the environment variable HF_ENDPOINT; "
            f"(3) random weights: model.pretrained=null"
        ) from error
    return config, weights
