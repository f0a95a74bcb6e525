"""Which images form which batch: in one process or in several, from the start of an epoch or from its middle."""

from __future__ import annotations

import math
import random
from collections.abc import Iterator

from torch.utils.data import Sampler

__all__ = ["EpochBatches", "Key"]

Key = tuple[int, int, bool]
"""What a dataset is asked for: (index, epoch, counts)."""


class EpochBatches(Sampler[list[Key]]):
    """Batches of (index, epoch, counts) in an order that follows from seed and epoch alone.

    Several processes together have the batches that one process with `world * batch_size` images a step has: rank r
    has the r-th contiguous part of each. Where the last batch has fewer images than there are ranks, a rank without
    one gets an image that does not count, so that all take equally many steps.

    Args:
        length: number of items.
        batch_size: items a batch and process; the last one may be smaller.
        seed: of the shuffle.
        rank: this process among `world`.
        world: number of processes that train together.

    Attributes:
        epoch: which epoch `iter` gives.
        start: number of its batches that are left out: those that were done before an interruption.
    """

    def __init__(self, length: int, batch_size: int, seed: int, rank: int = 0, world: int = 1) -> None:
        self.length, self.batch_size, self.seed, self.rank, self.world = length, batch_size, seed, rank, world
        self.epoch = 0
        self.start = 0

    def __len__(self) -> int:
        """Batches in a whole epoch."""
        return math.ceil(self.length / (self.batch_size * self.world))

    def __iter__(self) -> Iterator[list[Key]]:
        """The batches of `epoch`, from batch number `start`."""
        order = random.Random(f"order/{self.seed}/{self.epoch}").sample(range(self.length), self.length)
        size = self.batch_size * self.world
        for first in range(self.start * size, self.length, size):
            chosen = order[first : first + size]
            low, high = (part * len(chosen) // self.world for part in (self.rank, self.rank + 1))
            own = [(index, self.epoch, True) for index in chosen[low:high]]
            yield own or [(chosen[0], self.epoch, False)]
