"""Folders that are exchanged as a whole: at no moment is there none, and nothing foreign is ever removed."""

import ctypes
import errno
import logging
import os
import sys
from collections.abc import Collection, Iterator
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path

from kronos_lightning.errors import KronosError

from .marker import MARKER, is_replaceable, mark
from .names import temporary_name
from .paths import sync
from .temporary import temporary

AT_FDCWD, RENAME_NOREPLACE, RENAME_EXCHANGE = -100, 1, 2  # of Linux
UNSUPPORTED = {errno.ENOSYS, errno.EINVAL, errno.EOPNOTSUPP}  # by the system or the file system

log = logging.getLogger(__name__)


class StorageError(KronosError, OSError):
    """Error if something in the way prevents a result from being written; the message says what."""


@contextmanager
def atomic_directory(
    path: Path, *, origin: str | None = None, may_gain: Collection[str] = (), keep: bool = False
) -> Iterator[Path]:
    """Yield a temporary folder next to `path`; it replaces all of `path` on success and is removed on failure.

    A folder at `path` is removed only if this project made it from the same origin and it holds nothing else. Otherwise
    it is set aside under a new name, with a message.

    Args:
        path: the folder.
        origin: what the content is made from; None = the path says it all.
        may_gain: names of files that other commands of this project may add, and that go with the folder.
        keep: set an earlier folder aside in any case.

    Raises:
        StorageError: `path` or one of its parents is a file.
    """
    require_no_file(path)
    with temporary(path, folder=True) as place:
        yield place
        mark(place, origin, may_gain)
        permissions = (place / MARKER).stat().st_mode
        for base, _, names in os.walk(place, topdown=False):
            for name in names:
                (Path(base) / name).chmod(permissions)  # some libraries give a file to its owner alone
                sync(Path(base) / name)
            sync(Path(base))
        while not rename_new(place, path):
            if keep or not is_replaceable(path, origin):
                _set_aside(path, expected=keep)
                continue
            with suppress(FileNotFoundError):  # another process has just moved it
                exchange(place, path)
                break
        sync(path.parent)


def require_no_file(path: Path) -> None:
    """Raise `StorageError` if `path` or one of its parents is a file, although a folder is to be written."""
    for place in (path, *path.parents):
        if place.is_file():
            raise StorageError(f"{place}: is a file, but a folder is needed; move it away or name another folder")


def archive(path: Path) -> Path | None:
    """Append the modification time to the name of the file or directory at `path`.

    Returns:
        The new path, or None if `path` does not exist.
    """
    if not os.path.lexists(path):
        return None
    stamp = datetime.fromtimestamp(path.lstat().st_mtime, UTC).strftime("%Y-%m-%d_%H-%M-%S")
    aside = path.with_name(f"{path.name}.{stamp}")
    while not rename_new(path, aside):
        aside = aside.with_name(aside.name + "+")
    sync(path.parent)
    return aside


def exchange(one: Path, other: Path) -> None:
    """Exchange two folders that exist, in one step where the system can do so."""
    if not _renameat2(one, other, RENAME_EXCHANGE):
        aside = temporary_name(other)
        os.rename(other, aside)
        os.rename(one, other)
        os.rename(aside, one)


def rename_new(old: Path, new: Path) -> bool:
    """Rename a file or folder; return False, and rename nothing, if `new` exists."""
    try:
        if _renameat2(old, new, RENAME_NOREPLACE):
            return True
    except FileExistsError:
        return False
    if os.path.lexists(new):
        return False
    os.rename(old, new)
    return True


def _set_aside(path: Path, expected: bool) -> None:
    aside = archive(path)
    if aside is None:
        return
    if expected:
        log.info("The earlier folder was moved to %s", aside)
    else:
        log.warning("%s was in the way (of another origin, or with files of your own): moved to %s", path, aside)


def _renameat2(old: Path, new: Path, flag: int) -> bool:
    """Rename by the call of Linux that takes a flag; return False if it does not exist here.

    Raises:
        OSError: the call exists and failed.
    """
    call = getattr(ctypes.CDLL(None, use_errno=True), "renameat2", None) if sys.platform == "linux" else None
    if call is None:
        return False
    if call(AT_FDCWD, os.fsencode(old), AT_FDCWD, os.fsencode(new), flag) == 0:
        return True
    code = ctypes.get_errno()
    if code in UNSUPPORTED:
        return False
    raise OSError(code, os.strerror(code), str(old), None, str(new))
