"""Checkpoint directories with `config.json` and `model.safetensors`, local or on the Hugging Face Hub."""

import os
from pathlib import Path
from typing import Any, ClassVar, Self, cast

import torch
from huggingface_hub import PyTorchModelHubMixin, hf_hub_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file
from torch import nn
from torch.overrides import TorchFunctionMode

from kronos_lightning.errors import KronosError
from kronos_lightning.settings import Section, read_stored

from .record import TrainingRecord

CONFIG_FILE = "config.json"
WEIGHTS_FILE = "model.safetensors"
RECORD_FILE = "training.json"  # metadata of the training, next to these files if the network was trained here
FLOATING = ("F64", "F32", "F16", "BF16")  # types of weights in a safetensors file


class CheckpointError(KronosError, ValueError):
    """Error for a checkpoint that cannot be found or does not fit; the message says what to do."""


class PretrainedModule(PyTorchModelHubMixin):
    """Mixin with `save_pretrained` and `push_to_hub` from huggingface_hub, and with a strict `from_pretrained`.

    Strict means: only safetensors are read (nothing is unpickled), every key must be present and fit, weights are
    finite floating-point numbers, and no key of `config.json` is ignored. Sizes are checked before memory is taken.

    sizes: arguments of the constructor, with their bounds.
    """

    sizes: ClassVar[type[Section]]

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
        config = _read_config(config_path, cls)
        problem = f"{weights_path}: weights do not fit a {cls.__name__}"
        try:
            _compare_header(weights_path, cls, config)
            model = cls(**config)
            model.load_state_dict(load_file(weights_path), strict=True)
        except (RuntimeError, OSError, SafetensorError) as error:
            reason = " ".join(str(error).split())
            raise CheckpointError(f"{problem}: {reason[:600]}") from error
        for name, tensor in model.state_dict().items():
            if not tensor.isfinite().all():
                raise CheckpointError(f"{problem}: {name} holds values that are not finite numbers")
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
    record = read_record(directory)
    return None if record is None else record.get("settings", {}).get("volume")


def read_record(directory: Path) -> dict[str, Any] | None:
    """Read the training metadata of a checkpoint directory; return None if there is none.

    Raises:
        CheckpointError: the file is damaged.
    """
    remedy = "restore the file, or delete it to use the weights without their origin"
    found = read_stored(directory / RECORD_FILE, TrainingRecord, CheckpointError, remedy)
    return None if found is None else found.content()


def _read_config(path: Path, cls: type[PretrainedModule]) -> dict[str, Any]:
    """Read the arguments of a network's constructor; raise `CheckpointError` if they describe no such network."""
    remedy = f"name a checkpoint directory of a {cls.__name__}"
    try:
        found = read_stored(path, cls.sizes, CheckpointError, remedy)
    except CheckpointError as error:
        other = _other_network(path, cls)
        reason = f"it describes a {other}; are tokenizer and predictor exchanged?" if other else error
        raise CheckpointError(f"{path}: does not describe a {cls.__name__}: {reason}") from error
    if found is None:
        raise CheckpointError(f"{path}: missing; {remedy}")
    return found.model_dump()


def _compare_header(weights_path: Path, cls: type[PretrainedModule], config: dict[str, Any]) -> None:
    """Compare names, shapes and types of the weights with the network's, without memory for either.

    Raises:
        RuntimeError, SafetensorError: they differ, or the file is damaged.
    """
    with torch.device("meta"), _Undrawn():
        blueprint = cast(nn.Module, cls(**config))
        with safe_open(weights_path, "pt") as file:
            header = {name: file.get_slice(name) for name in file.keys()}  # noqa: SIM118
            tensors = {name: torch.empty(part.get_shape()) for name, part in header.items()}
            types = {name: part.get_dtype() for name, part in header.items()}
    blueprint.load_state_dict(tensors, strict=True)
    for name, tensor in blueprint.state_dict().items():
        if types[name] not in (FLOATING if tensor.is_floating_point() else ("I64",)):
            raise RuntimeError(f"{name} is of type {types[name]}, not of a floating type")


class _Undrawn(TorchFunctionMode):
    """Mode in which no initial values are drawn: on the meta device there are none, but each draw takes its time."""

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        if func in (torch.Tensor.normal_, torch.Tensor.uniform_):
            return args[0]
        return func(*args, **(kwargs or {}))


def trained_representation(directory: Path) -> Any:
    """Return the representation of candles that a checkpoint directory records, as in its file; None without one."""
    record = read_record(directory)
    return None if record is None else record.get("representation")


def _other_network(config_path: Path, cls: type[PretrainedModule]) -> str | None:
    """Return the name of the network that a configuration describes if it is another one than `cls`."""
    others = (other for other in PretrainedModule.__subclasses__() if other is not cls)
    for other in others:
        try:
            read_stored(config_path, other.sizes, CheckpointError, "")
        except CheckpointError:
            continue
        return other.__name__
    return None


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
