"""Batch norm's statistics, estimated anew for the network as it is now."""

from __future__ import annotations

import dataclasses
import random
from typing import TYPE_CHECKING

import torch
from torch import nn

from unet_edge.data.batches import EpochBatches
from unet_edge.data.loader import make_loader

if TYPE_CHECKING:
    from unet_edge.data.split import Split
    from unet_edge.model import UNet
    from unet_edge_runtime.spec import ModelSpec

    from .config import TrainConfig
    from .distributed import World
    from .engine import Engine

__all__ = ["NormStatistics"]

NORM_MEMORY = 0.9  # how much of a running average stays at a step: torch's momentum is 0.1
WINDOWS = 10


class NormStatistics:
    """Means and variances over a fixed choice of training images, in batches as in training.

    The running averages follow the weights with a delay: after few steps a network predicts far worse with them than
    it has learnt to, even more so one with averaged weights (Wu and Johnson, 2021, arXiv:2105.07576, section 3). Later
    they are the better estimate, because they have seen more images.

    Args:
        split: its training images are drawn from.
        spec: how images are treated.
        config: norm_images, batch_size, seed and all that the loader uses.
        engine: its device, precision and number of parts a batch are used.
        world: with synchronised norms each of its processes sees its part of every batch; otherwise each sees all, in
            batches of its own, as in training.

    Attributes:
        until: the step from which the running averages are better: ten times what the slowest of them remembers.
    """

    def __init__(self, split: Split, spec: ModelSpec, config: TrainConfig, engine: Engine, world: World) -> None:
        self.engine, self.until = engine, WINDOWS / (1 - max(config.ema, NORM_MEMORY))
        rank, size = (world.rank, world.size) if config.sync_norm else (0, 1)
        # Whole batches, unless there are fewer images: the last batch is then the one that training has, too.
        batch = config.batch_size * size
        count = min(len(split.train), -(-config.norm_images // batch) * batch)
        pairs = random.Random(f"norms/{config.seed}").sample(split.train, count)
        self.batches = EpochBatches(count, config.batch_size, config.seed, rank, size)
        # In the main process: a second set of workers would hold its memory for a few batches an epoch.
        config = dataclasses.replace(config, workers=0)
        self.loader = make_loader(pairs, spec, config, engine.device, self.batches)

    @torch.no_grad()
    def estimate(self, model: UNet, epoch: int) -> None:
        """Give the batch norms of a model the mean of the batches' statistics.

        Args:
            model: on the engine's device, in evaluation mode afterwards.
            epoch: decides how the images are augmented.
        """
        norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
        before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
        self.batches.epoch, done = epoch, 0
        model.eval()
        try:
            for norm in norms:
                norm.train().num_batches_tracked = None
            for images, _ in self.loader:
                images = images.to(self.engine.device, memory_format=self.engine.layout)
                for part in images.tensor_split(self.engine.parts(len(images))):
                    done += 1
                    for norm in norms:
                        norm.momentum = 1 / done
                    with self.engine.precision.autocast():
                        model(part)
        finally:
            for norm, (momentum, count) in zip(norms, before, strict=True):
                norm.eval()
                norm.momentum, norm.num_batches_tracked = momentum, count
