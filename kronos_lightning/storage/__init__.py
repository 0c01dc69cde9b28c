"""Files and folders that are written whole or not at all, and locks that end with their process."""

from .folders import StorageError, archive, atomic_directory, exchange, require_no_file
from .lock import InUseError, Lock
from .marker import MARKER
from .paths import atomic_path, sha256, sync
from .temporary import clear_leftovers

__all__ = [
    "MARKER",
    "InUseError",
    "Lock",
    "StorageError",
    "archive",
    "atomic_directory",
    "atomic_path",
    "clear_leftovers",
    "exchange",
    "require_no_file",
    "sha256",
    "sync",
]
