"""Prepared arrays in memory that all loading processes share."""

from __future__ import annotations

import mmap
import multiprocessing
from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MemoryStore"]

_TYPES = (np.dtype(np.uint8), np.dtype(np.uint16), np.dtype(np.float32))
_ALIGNMENT = 64  # bytes: a cache line


class MemoryStore:
    """Keeps what fits; what came first stays, because every epoch asks for every item once.

    Forked processes share one block, whose pages are taken from the system when they are first written. Where
    processes are spawned instead (macOS, Windows), each has a block of its own, of the size `share`.

    Args:
        length: number of items.
        room: bytes.
        share: bytes that each spawned process gets; `room` by default.
    """

    def __init__(self, length: int, room: int, share: int | None = None) -> None:
        self.length, self.room, self.share = length, room, room if share is None else share
        try:
            self._block = mmap.mmap(-1, max(room, mmap.PAGESIZE))
        except (OSError, ValueError, OverflowError):  # a limited address space: nothing is kept
            self.room, self.share, self._block = 0, 0, mmap.mmap(-1, mmap.PAGESIZE)
        # A row an item: where it begins plus one (0: not there), height, width, channels, type.
        table = mmap.mmap(-1, max(length * 5 * 8, mmap.PAGESIZE))
        self._table = np.frombuffer(table, np.int64, length * 5).reshape(length, 5)
        self._end = np.frombuffer(mmap.mmap(-1, mmap.PAGESIZE), np.int64, 1)
        self._lock = multiprocessing.get_context("fork" if _can_fork() else None).Lock()

    def __reduce__(self) -> tuple[Any, ...]:
        return MemoryStore, (self.length, self.share)

    def get(self, index: int) -> NDArray[np.generic] | None:
        """The item's array, not to be written to, or None."""
        with self._lock:
            start, height, width, channels, kind = self._table[index].tolist()
        if not start:
            return None
        array = np.frombuffer(self._block, _TYPES[kind], height * width * channels, start - 1)
        array.flags.writeable = False
        return array.reshape(height, width, channels)

    def put(self, index: int, array: NDArray[np.generic]) -> None:
        """Keep (h, w, channels) uint8, uint16 or float32, if there is room."""
        with self._lock:
            start = int(self._end[0])
            if start + array.nbytes > self.room or self._table[index, 0]:
                return
            self._end[0] = start + -(-array.nbytes // _ALIGNMENT) * _ALIGNMENT
        np.frombuffer(self._block, array.dtype, array.size, start)[:] = array.ravel()
        with self._lock:
            self._table[index] = start + 1, *array.shape, _TYPES.index(array.dtype)


def _can_fork() -> bool:
    return "fork" in multiprocessing.get_all_start_methods()
