"""Names of the hidden files and folders that this project leaves next to its results for a while."""

import secrets
from pathlib import Path

TEMPORARY = ".kronos-tmp-"  # part of every temporary name of this project, and of no other
LOCK = ".kronos-lock"  # suffix of the file of a lock


def temporary_name(path: Path, suffix: str = "") -> Path:
    """Return a new temporary path next to a path, with the suffix of a file."""
    return path.with_name(f".{path.name}{TEMPORARY}{secrets.token_hex(4)}{suffix}")


def is_hidden(name: str) -> bool:
    """Return True for the name of a temporary file, a temporary folder or a lock of this project."""
    return name.startswith(".") and (TEMPORARY in name or name.endswith(LOCK))
