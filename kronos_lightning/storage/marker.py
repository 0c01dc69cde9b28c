"""Marker of the folders that this project makes: only they are ever removed, and only if nothing foreign is inside."""

import json
import os
from collections.abc import Collection
from pathlib import Path
from typing import Any

from .names import is_hidden

MARKER = ".kronos-lightning.json"


def mark(folder: Path, origin: str | None = None, may_gain: Collection[str] = (), complete: bool = True) -> None:
    """Write the marker of a folder, which lists its content.

    Args:
        folder: the folder.
        origin: what the content was made from; None = the folder's path says it all.
        may_gain: files that other commands of this project may add.
        complete: False = the folder is being written, and all that it holds is this project's.
    """
    files = sorted(_files(folder)) if complete else None
    content = {"made_by": "kronos-lightning", "origin": origin, "files": files, "may_gain": sorted(may_gain)}
    (folder / MARKER).write_text(json.dumps(content, indent=1))


def is_replaceable(folder: Path, origin: str | None) -> bool:
    """Return True if this project made a folder from `origin` and nothing foreign is inside."""
    marker = _read(folder)
    return marker is not None and marker.get("origin") == origin and holds_only_own(folder)


def holds_only_own(folder: Path) -> bool:
    """Return True if a folder has a marker and holds nothing that the marker does not list."""
    marker = _read(folder)
    if marker is None:
        return False
    return marker["files"] is None or _files(folder) <= {*marker["files"], *marker["may_gain"]}


def _read(folder: Path) -> dict[str, Any] | None:
    """Read the marker; return None if there is none, for a symbolic link, and if the marker is damaged."""
    if folder.is_symlink():
        return None
    try:
        content = json.loads((folder / MARKER).read_text())
    except (OSError, ValueError):
        return None
    listed = isinstance(content, dict) and {"files", "may_gain"} <= content.keys()
    texts = listed and all(isinstance(name, str) for name in [*(content["files"] or []), *content["may_gain"]])
    return content if texts else None


def _files(folder: Path) -> set[str]:
    """Return the relative paths of all files and links of a folder, without markers, locks and temporary files."""
    found = set()
    for base, folders, files in os.walk(folder):
        links = [name for name in folders if (Path(base) / name).is_symlink()]
        found |= {(Path(base) / name).relative_to(folder) for name in (*files, *links)}
    return {path.as_posix() for path in found if path != Path(MARKER) and not any(map(is_hidden, path.parts))}
