"""What was found in files, remembered between runs. Losing it costs time, so nothing here ever fails."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
from pathlib import Path
from typing import Any

import PIL

from unet_edge_runtime.errors import UnetEdgeError
from unet_edge_runtime.files import cache_folder, write_text

__all__ = ["FactsCache"]

VERSION = 3


class FactsCache:
    """Plain JSON facts about files, one store a folder of files.

    A fact counts as long as the file has the same path, size, inode, and times of modification and of change (in
    nanoseconds; `mv` and `cp -p` keep the former), and was found by the same version of Pillow.

    Args:
        enabled: False remembers nothing.
    """

    def __init__(self, enabled: bool = True) -> None:
        self.enabled = enabled
        self._stores: dict[str, dict[str, Any]] = {}
        self._changed: set[str] = set()

    def get(self, kind: str, path: Path) -> Any:
        """The fact of this kind about a file, or None. It may have been damaged on disk: check it."""
        folder, key = _place(path, kind)
        entry = self._store(folder).get(key)
        stamp = _stamp(path)
        if stamp is None or not isinstance(entry, list) or len(entry) != 2 or entry[0] != stamp:
            return None
        return entry[1]

    def put(self, kind: str, path: Path, fact: Any) -> None:
        """Remember a fact about a file."""
        folder, key = _place(path, kind)
        stamp = _stamp(path)
        if stamp is not None:
            self._store(folder)[key] = [stamp, fact]
            self._changed.add(folder)

    def save(self) -> None:
        """Write what is new; where that is not possible, go on without."""
        if not self.enabled:
            return
        for folder in self._changed:
            text = json.dumps({**_header(), "facts": self._stores[folder]}, separators=(",", ":"))
            with contextlib.suppress(OSError, UnetEdgeError):
                write_text(_file(folder), text)
        self._changed.clear()

    def _store(self, folder: str) -> dict[str, Any]:
        if folder not in self._stores:
            # Two threads may read the same store; setdefault lets one of them win for both.
            self._stores.setdefault(folder, _read(_file(folder)) if self.enabled else {})
        return self._stores[folder]


def _header() -> dict[str, Any]:
    return {"version": VERSION, "pillow": PIL.__version__}


def _read(path: Path) -> dict[str, Any]:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        data = json.loads(path.read_text(encoding="utf-8"))
        if isinstance(data, dict) and {key: data.get(key) for key in _header()} == _header():
            facts = data.get("facts")
            return facts if isinstance(facts, dict) else {}
    return {}


def _file(folder: str) -> Path:
    name = hashlib.sha256(os.fsencode(folder)).hexdigest()[:32]
    return cache_folder() / "scan" / f"{name}.json"


def _place(path: Path, kind: str) -> tuple[str, str]:
    absolute = path.absolute()
    return str(absolute.parent), f"{kind} {absolute.name}"


def _stamp(path: Path) -> list[int] | None:
    try:
        status = path.stat()
    except OSError:
        return None
    return [status.st_size, status.st_mtime_ns, status.st_ino, status.st_ctime_ns]
