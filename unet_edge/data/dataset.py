"""Pairs as tensors: read, scaled, flipped, padded into batches."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import Dataset, Sampler

from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec
from unet_edge_runtime.transform import bring_to_scale, normalise, pad_image

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .pairing import Pair

__all__ = ["CACHE_BYTES", "Collate", "EpochBatches", "SegmentationDataset"]

CACHE_BYTES = 2 << 30  # prepared images of Carvana at half size are 0.6 MB each: 5,000 would fill 3 GB

Sample = tuple["NDArray[np.float32]", "NDArray[np.uint8]"]


class SegmentationDataset(Dataset[Sample]):
    """Pairs of images and masks at the network's scale.

    An item is asked for by (index, epoch): its random flip follows from both and the seed, so that order of
    access, number of workers and interruptions change nothing.

    Args:
        pairs: the files.
        spec: how to treat them.
        flip: none, horizontal or both.
        seed: of the flips.
        cache_bytes: how much of the prepared arrays to keep in memory.
    """

    def __init__(
        self, pairs: Sequence[Pair], spec: ModelSpec, flip: str = "none", seed: int = 0, cache_bytes: int = CACHE_BYTES
    ) -> None:
        self.pairs, self.spec, self.flip, self.seed = pairs, spec, flip, seed
        self.room = cache_bytes
        self.cache: dict[int, tuple[NDArray[np.generic], NDArray[np.uint8]]] = {}

    def __len__(self) -> int:
        return len(self.pairs)

    def __getitem__(self, key: tuple[int, int]) -> Sample:
        """Image (C, h, w) float32 and labels (h, w) uint8 of (index, epoch)."""
        index, epoch = key
        image, labels = self._prepared(index)
        x = normalise(image, self.spec)
        choice = random.Random(f"{self.seed}/{epoch}/{index}")
        if self.flip != "none" and choice.random() < 0.5:
            x, labels = x[:, :, ::-1], labels[:, ::-1]
        if self.flip == "both" and choice.random() < 0.5:
            x, labels = x[:, ::-1], labels[::-1]
        return np.ascontiguousarray(x), np.ascontiguousarray(labels)

    def _prepared(self, index: int) -> tuple[NDArray[np.generic], NDArray[np.uint8]]:
        if index in self.cache:
            return self.cache[index]
        pair = self.pairs[index]
        image = bring_to_scale(read_image(pair.image), self.spec)
        labels = labels_from_mask(read_mask(pair.mask), self.spec, pair.mask)
        size = image.shape[1], image.shape[0]
        labels = np.asarray(Image.fromarray(labels).resize(size, Image.Resampling.NEAREST))
        if image.nbytes + labels.nbytes <= self.room:
            self.room -= image.nbytes + labels.nbytes
            self.cache[index] = image, labels
        return image, labels


class EpochBatches(Sampler[list[tuple[int, int]]]):
    """Batches of (index, epoch) in an order that follows from seed and epoch alone.

    Args:
        length: number of items.
        batch_size: items a batch; the last one may be smaller.
        seed: of the shuffle.
    """

    def __init__(self, length: int, batch_size: int, seed: int) -> None:
        self.length, self.batch_size, self.seed = length, batch_size, seed
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return math.ceil(self.length / self.batch_size)

    def __iter__(self) -> Iterator[list[tuple[int, int]]]:
        """The batches of `epoch`, from batch number `start`."""
        order = random.Random(f"order/{self.seed}/{self.epoch}").sample(range(self.length), self.length)
        for batch in range(self.start, len(self)):
            chosen = order[batch * self.batch_size : (batch + 1) * self.batch_size]
            yield [(index, self.epoch) for index in chosen]


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
        images = np.stack([pad_image(x, (height, width), self.spec.padding) for x, _ in samples])
        labels = np.full((len(samples), height, width), IGNORE_LABEL, np.uint8)
        for row, (_, item) in zip(labels, samples, strict=True):
            row[: item.shape[0], : item.shape[1]] = item
        return torch.from_numpy(images), torch.from_numpy(labels)
