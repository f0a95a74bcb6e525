"""Pairs at the network's scale, as one array each: what is made once and kept."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import PIL
import torch

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import bring_to_scale

from .disk_store import DiskStore, content_key
from .draft import read_scaled
from .memory_store import MemoryStore
from .nearest import mask_at
from .pairing import Pair
from .resources import free_memory, local_processes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CACHES", "Preparation", "Store", "open_store"]

CACHES = ("memory", "disk", "none")
VERSION = 2  # of what `Preparation` makes


class Store(Protocol):
    """Keeps prepared arrays by index. Losing one costs time, so neither method ever fails."""

    def get(self, index: int) -> NDArray[np.generic] | None:
        """The array that was put, not to be written to; None where there is none."""

    def put(self, index: int, array: NDArray[np.generic]) -> None:
        """Keep an array, if there is room."""


@dataclass(frozen=True)
class Preparation:
    """How pairs are read and brought to the network's scale.

    Attributes:
        pairs: the files.
        spec: channels, scale, resample filter, classes and ignored value are used.
        fast_decode: decode JPEG files at a part of their size (`read_scaled`).
    """

    pairs: Sequence[Pair]
    spec: ModelSpec
    fast_decode: bool = False

    def make(self, index: int) -> NDArray[np.generic]:
        """Read a pair.

        Returns:
            (h, w, C + 1) in the image's own type: its channels, then the labels.

        Raises:
            InputError: a file cannot be read, or the mask holds a value that is no class.
        """
        pair = self.pairs[index]
        read = read_scaled(pair.image, self.spec) if self.fast_decode else None
        image = bring_to_scale(read_image(pair.image), self.spec) if read is None else read
        # Before values become labels, not after: of a photo at a quarter that is a sixteenth of the work.
        mask = mask_at((image.shape[0], image.shape[1]), read_mask(pair.mask))
        return np.dstack([image, labels_from_mask(mask, self.spec, pair.mask).astype(image.dtype)])

    def key(self, index: int) -> str:
        """64 hexadecimal digits that follow from all that `make` depends on: contents, spec, versions."""
        spec = self.spec
        facts = {
            "version": VERSION,
            "pillow": PIL.__version__,
            "torch": torch.__version__ if self.fast_decode else None,
            "spec": [spec.channels, spec.scale, spec.resample, spec.ignore_value],
            "values": [info.value for info in spec.classes],
        }
        pair = self.pairs[index]
        return content_key((pair.image, pair.mask), json.dumps(facts))


def open_store(kind: str, preparation: Preparation, workers: int = 0) -> Store | None:
    """The cache of that kind; None for "none".

    Memory takes up to half of what is free, divided among the processes of this machine; disk up to half of what is
    free there. Where that is full, the remaining pairs are prepared each time.

    Args:
        kind: memory, disk or none.
        preparation: what is kept.
        workers: processes that load.

    Raises:
        InputError: no such kind, or the disk cache cannot be written.
    """
    if kind == "none":
        return None
    if kind == "disk":
        return DiskStore(preparation.key, preparation.spec.channels + 1)
    if kind == "memory":
        room = free_memory() // 2 // local_processes()
        return MemoryStore(len(preparation.pairs), room, share=room // max(1, workers))
    raise InputError(f"the cache must be one of {', '.join(CACHES)}, not {kind!r}")
