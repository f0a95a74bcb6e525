"""Prepared arrays on disk, shared by all processes and by later runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import secrets
import shutil
import time
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["DiskStore", "clear", "content_key", "prepared_folder"]

_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_HEADER = 128  # bytes before the array
_CHECKSUM = 4  # bytes after it
_LOOK_AGAIN = 32  # the folder is measured again after each such part of the limit, because others write too


def prepared_folder() -> Path:
    """Where prepared pairs lie; it can be deleted at any time."""
    return cache_folder() / "prepared"


def clear() -> int:
    """Delete all prepared pairs.

    Returns:
        The bytes that were freed.
    """
    folder = prepared_folder().resolve()  # it may be a link to a larger disk
    before = sum(size for _, size, _ in _entries(folder))
    shutil.rmtree(folder, ignore_errors=True)
    return before - sum(size for _, size, _ in _entries(folder))


class DiskStore:
    """A file a pair: a .npy array with its CRC-32 behind it, renamed into place when it is whole.

    Where the folder has grown to its limit, entries that were not used since this store was made give way, the
    oldest first; where there are none, nothing more is kept.

    Args:
        key: the name of an item's file: hexadecimal digits that follow from everything that made the array.
        channels: of the arrays, the labels included.
        limit: bytes in the folder; by default half of what is free, with what the folder already takes.

    Raises:
        InputError: the folder cannot be made or written to.
    """

    def __init__(self, key: Callable[[int], str], channels: int, limit: int | None = None) -> None:
        self.key, self.channels, self.folder = key, channels, prepared_folder()
        self.started = time.time() - 1  # the clock of a file system may lag behind
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if not os.access(self.folder, os.W_OK):
                raise PermissionError("no permission to write")
            self.limit = self._default_limit() if limit is None else limit
        except OSError as error:
            raise InputError(
                f"{self.folder}: cannot keep prepared images there ({error}): set UNET_EDGE_CACHE to another folder, "
                "or use --cache memory"
            ) from None
        self._paths: dict[int, Path] = {}
        self._sound: set[int] = set()
        self._room = 0
        self._full = False

    def get(self, index: int) -> NDArray[np.generic] | None:
        """The item's array, mapped from its file, or None. It is checked when this process first reads it."""
        try:
            path = self._path(index)
            if index not in self._sound and not self._is_sound(path):
                path.unlink(missing_ok=True)
                return None
            if index not in self._sound:
                os.utime(path)  # used in this run: does not give way
                self._sound.add(index)
            return np.load(path, mmap_mode="r", allow_pickle=False)
        except (OSError, ValueError):
            self._sound.discard(index)
            return None

    def put(self, index: int, array: NDArray[np.generic]) -> None:
        """Keep (h, w, channels) uint8, uint16 or float32, if there is room."""
        array = np.ascontiguousarray(array)
        if not self._make_room(_HEADER + array.nbytes + _CHECKSUM):
            return
        # No fsync, unlike `files.atomic_path`: what a power cut damages is found by its checksum and made again.
        with contextlib.suppress(OSError):
            path = self._path(index)
            temporary = path.with_name(f".{path.stem}.{os.getpid()}.{secrets.token_hex(4)}.tmp")
            try:
                with temporary.open("wb") as stream:
                    np.save(stream, array, allow_pickle=False)
                    stream.write(_checksum(array))
                os.replace(temporary, path)
            finally:
                temporary.unlink(missing_ok=True)

    def _path(self, index: int) -> Path:
        if index not in self._paths:
            self._paths[index] = self.folder / f"{self.key(index)}.npy"
        return self._paths[index]

    def _is_sound(self, path: Path) -> bool:
        try:
            array = np.load(path, mmap_mode="r", allow_pickle=False)
            if array.dtype not in _TYPES or array.ndim != 3 or array.shape[2] != self.channels:
                return False
            with path.open("rb") as stream:
                stream.seek(array.offset + array.nbytes)
                return stream.read(_CHECKSUM + 1) == _checksum(array)
        # Not there, or damaged: numpy parses a header as Python text, which fails in many ways.
        except Exception:
            return False

    def _make_room(self, size: int) -> bool:
        """Whether `size` more bytes may be written; old entries give way."""
        if self._room < size and not self._full:
            self._room = self._measure(size)
            self._full = self._room < size
        self._room -= 0 if self._full else size
        return not self._full

    def _measure(self, size: int) -> int:
        """Bytes to write before the folder is measured again; below `size` where it is full."""
        entries = sorted(_entries(self.folder))
        free = self.limit - sum(taken for _, taken, _ in entries)
        wanted = max(size, self.limit // _LOOK_AGAIN)
        for used, taken, path in entries:
            if free >= wanted or used >= self.started:
                break
            with contextlib.suppress(OSError):
                path.unlink()
                free += taken
        return min(free, wanted)

    def _default_limit(self) -> int:
        taken = sum(size for _, size, _ in _entries(self.folder))
        return (shutil.disk_usage(self.folder).free + taken) // 2


def _checksum(array: NDArray[np.generic]) -> bytes:
    return zlib.crc32(np.ascontiguousarray(array).data).to_bytes(_CHECKSUM, "little")


def content_key(paths: tuple[Path, ...], facts: str) -> str:
    """SHA-256 over the content of files, the formats in their names, and a text."""
    digest = hashlib.sha256(facts.encode())
    for path in paths:
        with path.open("rb") as stream:
            while block := stream.read(1 << 20):
                digest.update(block)
        digest.update(f"/{path.suffix.lower()}/{path.stat().st_size}/".encode())
    return digest.hexdigest()


def _entries(folder: Path) -> list[tuple[float, int, Path]]:
    """(last use, bytes, path) of each file, unfinished ones too."""
    found = []
    with contextlib.suppress(OSError), os.scandir(folder) as entries:
        for entry in entries:
            with contextlib.suppress(OSError):
                status = entry.stat(follow_symlinks=False)
                found.append((status.st_mtime, status.st_size, Path(entry.path)))
    return found
