"""Processed candles on disk: one folder for each data set and each set of settings that determines its content."""

import hashlib
import json
import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from kronos_lightning.data.formats import CandleError
from kronos_lightning.data.windows import WindowArrays
from kronos_lightning.settings.text import printable
from kronos_lightning.storage import Lock, atomic_directory, sha256

MANIFEST = "manifest.json"

log = logging.getLogger(__name__)


class ProcessedCandles:
    """Folder ``{label}-{hash}`` with the candles of the splits, as Parquet and as arrays, and their manifest.

    The name holds a hash of the settings, and a complete folder is never changed. So runs with one `data.name` and
    other settings or candles do not disturb each other, and what a process has read stays true.

    Args:
        parent: folder of all processed candles.
        label: name of the data set or fold.
        settings: everything that determines the content, with the checksums of the sources.
    """

    def __init__(self, parent: Path, label: str, settings: Mapping[str, Any]):
        self.label, self.settings = label, settings
        digest = hashlib.sha256(json.dumps(settings, sort_keys=True, default=str).encode()).hexdigest()
        self.folder = parent / f"{label}-{digest[:16]}"
        self._manifest: dict[str, Any] | None = None

    def frame_path(self, split: str) -> Path:
        """Return the path of the Parquet file of a split."""
        return self.folder / f"{self.label}_{split}_data.parquet"

    def array_paths(self, split: str) -> list[Path]:
        """Return the paths of the `WindowArrays` of a split."""
        return [self.folder / f"{self.label}_{split}_{name}.npy" for name in WindowArrays._fields]

    def manifest(self) -> dict[str, Any]:
        """Return the manifest; it is read only once.

        Raises:
            CandleError: the candles were not prepared, or the manifest is damaged.
        """
        if self._manifest is None:
            path = self.folder / MANIFEST
            try:
                content = json.loads(path.read_text())
            except (OSError, ValueError) as error:
                raise CandleError(f"{path}: missing or damaged; run the command again to write it") from error
            if not isinstance(content, dict) or content.get("settings") != json.loads(json.dumps(self.settings)):
                raise CandleError(f"{path}: written for other settings; delete {self.folder} and run again")
            self._manifest = content
        return self._manifest

    def is_whole(self) -> bool:
        """Return True if the folder exists and every file matches its checksum; log a warning if it is damaged."""
        if not self.folder.is_dir():
            return False
        try:
            files = self.manifest()["files"]
            for name, expected in files.items():
                if sha256(self.folder / name) != expected:
                    raise CandleError(f"{self.folder / name}: does not match its checksum")
        except (CandleError, OSError, KeyError, TypeError, AttributeError) as error:
            log.warning("Processing the candles again: %s", error)
            self._manifest = None
            return False
        return True

    def lock(self) -> Lock:
        """Return a lock for which other processes that need the same folder wait."""
        return Lock(self.folder, wait=True)

    @contextmanager
    def replaced(self) -> Iterator["ProcessedCandles"]:
        """Yield the same object on a temporary folder; on success its files appear in this folder all at once."""
        with atomic_directory(self.folder) as place:
            new = ProcessedCandles(place.parent, self.label, self.settings)
            new.folder = place
            yield new

    def finish(self, content: dict[str, Any]) -> None:
        """Write the manifest, with the checksum of every file of the folder."""
        files = {path.name: sha256(path) for path in sorted(self.folder.glob("[!.]*"))}
        text = json.dumps({"settings": self.settings, **content, "files": files}, indent=2)
        (self.folder / MANIFEST).write_text(text)


def differing(before: Mapping[str, str], now: Mapping[str, str]) -> str:
    """Describe the symbols of which both fingerprints are known and differ; empty text if there is none."""
    texts = (
        f"{symbol} (fingerprint {printable(before[symbol][:16])} before, {now[symbol][:16]} now)"
        for symbol in now
        if symbol in before and before[symbol] != now[symbol]
    )
    return ", ".join(texts)
