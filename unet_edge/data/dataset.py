"""Pairs as tensors: prepared, cropped, augmented, padded into batches."""

from __future__ import annotations

import random
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import Dataset

from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec
from unet_edge_runtime.transform import pad_image

from .augment import Augmenter
from .batches import Key
from .prepared import Preparation, Store

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Collate", "Sample", "SegmentationDataset"]

Sample = tuple["NDArray[np.float32]", "NDArray[np.uint8]"]


class SegmentationDataset(Dataset[Sample]):
    """Pairs of images and masks at the network's scale.

    An item is asked for by (index, epoch, counts). Everything random in it follows from seed, epoch and index, so
    that order of access, number of workers and interruptions change nothing.

    Args:
        preparation: the files, and how they are read.
        augmenter: crops, mirrors and changes an item; None leaves it as it is.
        seed: of everything random.
        store: keeps prepared pairs; None prepares them each time.
    """

    def __init__(
        self,
        preparation: Preparation,
        augmenter: Augmenter | None = None,
        seed: int = 0,
        store: Store | None = None,
    ) -> None:
        self.preparation, self.seed, self.store = preparation, seed, store
        self.augmenter = augmenter or Augmenter(preparation.spec)

    def __len__(self) -> int:
        return len(self.preparation.pairs)

    def __getitem__(self, key: Key) -> Sample:
        """Image (C, h, w) float32 and labels (h, w) uint8; all of them ignored where the item does not count.

        With a crop that is larger than the image, the image is filled up to it, with ignored labels.

        Raises:
            InputError: a file cannot be used.
        """
        index, epoch, counts = key
        x, labels = self.augmenter(self._prepared(index), random.Random(f"{self.seed}/{epoch}/{index}"))
        if not counts:
            labels = np.full_like(labels, IGNORE_LABEL)
        height, width = self.augmenter.crop or (0, 0)
        return _filled(x, labels, (max(height, x.shape[1]), max(width, x.shape[2])), self.preparation.spec)

    def _prepared(self, index: int) -> NDArray[np.generic]:
        prepared = self.store.get(index) if self.store else None
        if prepared is None:
            prepared = self.preparation.make(index)
            if self.store:
                self.store.put(index, prepared)
        return prepared


class Collate:
    """Join samples, of different sizes too: padded to the largest, rounded up to the spec's multiple.

    Args:
        spec: `multiple` and `padding` are used. What is added to an image is ignored in its labels.
    """

    def __init__(self, spec: ModelSpec) -> None:
        self.spec = spec

    def __call__(self, samples: list[Sample]) -> tuple[Tensor, Tensor]:
        """Images (N, C, H, W) float32 and labels (N, H, W) uint8."""
        largest = max(x.shape[1] for x, _ in samples), max(x.shape[2] for x, _ in samples)
        height, width = padded_size(largest, self.spec.multiple)
        filled = [_filled(x, labels, (height, width), self.spec) for x, labels in samples]
        images, labels = (np.stack(arrays) for arrays in zip(*filled, strict=True))
        return torch.from_numpy(images), torch.from_numpy(labels)


def _filled(x: NDArray[np.float32], labels: NDArray[np.uint8], size: tuple[int, int], spec: ModelSpec) -> Sample:
    """Both contiguous and filled up, below and to the right: the image as for prediction, labels with ignored ones."""
    below, right = size[0] - labels.shape[0], size[1] - labels.shape[1]
    if below or right:
        labels = np.pad(labels, [(0, below), (0, right)], constant_values=IGNORE_LABEL)
    return np.ascontiguousarray(pad_image(x, size, spec.padding)), np.ascontiguousarray(labels)
