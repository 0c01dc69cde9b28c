"""Atomic file writes, so that a half-written file is never mistaken for a result."""

import hashlib
import os
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .temporary import temporary


@contextmanager
def atomic_path(path: Path) -> Iterator[Path]:
    """Yield a temporary path next to `path`; it replaces `path` on success and is removed on failure.

    The new file is on the disk, not only in a cache, before it replaces the old.
    """
    with temporary(path) as place:
        permissions = place.stat().st_mode
        yield place
        place.chmod(permissions)  # some libraries put a file in its place that its owner alone may read
        sync(place)
        os.replace(place, path)
        sync(path.parent)


def sync(place: Path) -> None:
    """Force a file, or the names in a folder, to the disk.

    Raises:
        OSError: the file cannot be written to the disk.
    """
    if place.is_dir():
        with suppress(OSError):  # some file systems cannot do this, and then promise no order of renames either
            _fsync(place)
    else:
        _fsync(place)


def sha256(path: Path) -> str:
    """Return the hexadecimal SHA-256 of a file."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _fsync(place: Path) -> None:
    descriptor = os.open(place, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
