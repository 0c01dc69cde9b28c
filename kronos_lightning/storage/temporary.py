"""Hidden temporary files and folders next to what they replace, and removal of those that a killed process left."""

import glob
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from .marker import holds_only_own, mark
from .names import TEMPORARY, temporary_name

try:
    import fcntl
except ImportError:  # Windows: what a killed process leaves stays there
    fcntl = None  # type: ignore[assignment]

log = logging.getLogger(__name__)


@contextmanager
def temporary(path: Path, folder: bool = False) -> Iterator[Path]:
    """Create a temporary file or folder next to `path`, locked while in use and removed at the end if it still exists.

    Its permissions are those of any new file or folder (umask). Leftovers of killed processes for the same `path` are
    removed first.

    Args:
        path: file or folder that it will replace; missing parents are created.
        folder: create a folder.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    clear_leftovers(path.parent, path.name)
    place = temporary_name(path, "" if folder else path.suffix)
    if folder:
        place.mkdir()
    else:
        os.close(os.open(place, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o666))
    descriptor = os.open(place, os.O_RDONLY)
    try:
        _try_lock(descriptor)
        if folder:
            mark(place, complete=False)
        yield place
    finally:
        _remove(place)
        os.close(descriptor)


def clear_leftovers(parent: Path, name: str = "*") -> None:
    """Remove the temporary files and folders of killed processes.

    Args:
        parent: folder in which they lie; folders inside it are not searched.
        name: name of the file or folder that they were to replace; ``*`` = any.
    """
    for place in parent.glob(f".{name if name == '*' else glob.escape(name)}{TEMPORARY}*"):
        with suppress(OSError):  # removed by its owner or by another process in this moment, or of another user
            descriptor = os.open(place, os.O_RDONLY)
            try:
                if _try_lock(descriptor):
                    _remove(place)
            finally:
                os.close(descriptor)


def _remove(place: Path) -> None:
    """Remove a temporary file or folder, if it exists; a folder with foreign files in it stays."""
    if not place.is_dir():
        place.unlink(missing_ok=True)
    elif holds_only_own(place):
        shutil.rmtree(place, ignore_errors=True)
    else:
        with suppress(OSError):
            place.rmdir()  # if it is empty
        if place.exists():
            log.warning("%s: kept, it holds files that this project did not make", place)


def _try_lock(descriptor: int) -> bool:
    """Lock an open file or folder until it is closed or the process ends; return False if another process holds it."""
    if fcntl is None:
        return False
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:  # held by a living process, or a file system without such locks
        return False
    return True
