"""File cache of the tokens of all windows of a split, encoded once. Shape letters: N windows, W rows of a window."""

import hashlib
import json
import logging
import os
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from rich.progress import track

from kronos_lightning.data import CandleWindows
from kronos_lightning.model import KronosTokenizer
from kronos_lightning.storage import Lock, atomic_path, sha256

CHUNK = 256  # windows encoded together; fixed, so that tokens never depend on batches or on cached files
KEPT = 8  # maximum number of files in a folder; the least recently used are removed
WORTH_A_BAR = 20  # number of chunks from which a progress bar is shown
FORMAT = 1  # version of the files; a change invalidates old files

log = logging.getLogger(__name__)


def cached_tokens(
    tokenizer: KronosTokenizer, windows: CandleWindows, directory: Path, name: str, device: torch.device
) -> np.ndarray:
    """Return the tokens of all windows, ``(N, W, 2)`` uint16 (coarse, fine), memory-mapped read-only from their file.

    The file name identifies tokenizer, candles and windows. A missing, damaged or truncated file is written by one
    process; other processes that ask meanwhile wait.

    Args:
        tokenizer: in eval mode, float32, on `device`.
        windows: not augmented.
        directory: folder of the files.
        name: prefix of the file name.
        device: device to encode on.
    """
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / f"{name}_tokens_{_key(tokenizer, windows, device)}.npy"
    with Lock(directory / "tokens", wait=True):
        if _is_whole(path):
            log.info("Reusing the encoded tokens of %d windows in %s", len(windows), path)
        else:
            _write(path, tokenizer, windows, device)
        os.utime(path, ns=(time.time_ns(), time.time_ns()))  # higher resolution than touch
        _forget(directory)
        return np.load(path, mmap_mode="r")


def encode_all(tokenizer: KronosTokenizer, windows: CandleWindows, device: torch.device) -> Iterator[np.ndarray]:
    """Encode all windows in order; yield chunks ``(n, W, 2)`` uint16."""
    firsts = range(0, len(windows), CHUNK)
    with torch.inference_mode(), torch.autocast(device.type, enabled=False):
        for first in track(firsts, "Encoding windows", transient=True, disable=len(firsts) < WORTH_A_BAR):
            x = windows.__getitems__(range(first, min(first + CHUNK, len(windows)))).x.to(device)
            yield torch.stack(tokenizer.encode(x, half=True), dim=-1).cpu().numpy().astype(np.dtype("<u2"))


def _key(tokenizer: KronosTokenizer, windows: CandleWindows, device: torch.device) -> str:
    """Hash everything that determines the tokens, into 16 characters."""
    metadata = {"format": FORMAT, "chunk": CHUNK, "config": tokenizer.config, "device": device.type}
    digest = hashlib.sha256(json.dumps(metadata | windows.metadata, sort_keys=True).encode())
    for name, weight in tokenizer.state_dict().items():
        digest.update(name.encode())
        digest.update(weight.detach().cpu().contiguous().numpy())
    digest.update(windows.values.numpy())
    digest.update(windows.starts.numpy())
    return digest.hexdigest()[:16]


def _checksum(path: Path) -> Path:
    return path.with_suffix(".sha256")


def _is_whole(path: Path) -> bool:
    try:
        expected = _checksum(path).read_text()
        if sha256(path) == expected:
            return True
    except FileNotFoundError:
        return False
    log.warning("%s: damaged, encoding again", path)
    return False


def _write(path: Path, tokenizer: KronosTokenizer, windows: CandleWindows, device: torch.device) -> None:
    log.info("Encoding %d windows into %s", len(windows), path)
    _checksum(path).unlink(missing_ok=True)  # without a checksum the file counts as missing
    header = {"descr": "<u2", "fortran_order": False, "shape": (len(windows), windows.width, 2)}
    with atomic_path(path) as temporary, temporary.open("wb") as file:
        np.lib.format.write_array_header_1_0(file, header)
        for chunk in encode_all(tokenizer, windows, device):
            file.write(chunk.tobytes())
    with atomic_path(_checksum(path)) as temporary:
        temporary.write_text(sha256(path))


def _forget(directory: Path) -> None:
    """Remove the least recently used files; a process that has mapped a removed file keeps it."""
    files = sorted(directory.glob("*_tokens_*.npy"), key=lambda file: file.stat().st_mtime_ns, reverse=True)
    for path in files[KEPT:]:
        path.unlink()
        _checksum(path).unlink(missing_ok=True)
