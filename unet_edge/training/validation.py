"""What a run does with its validation images: score them, and show the first few."""

from __future__ import annotations

import copy
import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import torch

from unet_edge.evaluation import evaluate
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.errors import OutOfMemoryError
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.segmenter import Segmenter

from .tracking import Example, score_scalars

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unet_edge.data.pairing import Pair
    from unet_edge.model import UNet
    from unet_edge_runtime.scores import ConfusionMatrix
    from unet_edge_runtime.segmenter import Segmentation

    from .trainer import Trainer

__all__ = ["Look", "score", "show"]

SHOWN = 4  # validation images that are shown


@dataclass(frozen=True)
class Look:
    """A validation image with its true (H, W) and its predicted labels."""

    pair: Pair
    truth: NDArray[np.uint8]
    result: Segmentation

    def example(self) -> Example:
        """For a tracker."""
        return Example.from_labels(self.pair.name, self.result.image, self.truth, self.result.labels, self.result.spec)


def score(trainer: Trainer) -> tuple[Segmenter, dict[str, Any]]:
    """The trainer's network on all of its validation images, each process its share; the same in every process.

    Where a GPU does not hold an image, all of them are done on the CPU, which gives the same labels.
    """
    trainer.world.share(trainer.result)
    try:
        segmenter, matrix = _counted(trainer, trainer.result, trainer.device)
    except OutOfMemoryError:
        if trainer.device.type == "cpu":
            raise
    else:
        return segmenter, _summed(trainer, matrix)
    # Outside of the handler: the error's traceback holds what the failed pass had in memory.
    trainer.reporter.note(f"out of memory on {trainer.device}: this validation is done on the CPU")
    segmenter, matrix = _counted(trainer, copy.deepcopy(trainer.result).cpu(), torch.device("cpu"))
    return segmenter, _summed(trainer, matrix)


def _counted(trainer: Trainer, model: UNet, device: torch.device) -> tuple[Segmenter, ConfusionMatrix]:
    world, config, pairs = trainer.world, trainer.config, trainer.split.val
    segmenter = Segmenter(TorchBackend.from_model(model, trainer.spec, device))
    # Where training had to go in smaller parts, so must this; and whole images are larger than crops.
    batch = max(1, config.batch_size // trainer.engine.micro) if device.type == "cuda" else 1
    area = batch * math.prod(config.crop) if config.crop else math.inf
    with trainer.reporter.validating(len(pairs[world.rank :: world.size])) as seen:
        share = (world.rank, world.size)
        return segmenter, evaluate(segmenter, pairs, shard=share, batch=batch, area=area, on_image=seen)


def _summed(trainer: Trainer, matrix: ConfusionMatrix) -> dict[str, Any]:
    matrix.counts = trainer.world.all_sum(matrix.counts)
    return matrix.summary(trainer.spec)


def show(trainer: Trainer, segmenter: Segmenter, is_best: bool) -> None:
    """Record the scores, the weights and the first few images; the best ones become overlays in the run's folder."""
    pairs, spec, step = trainer.split.val[:SHOWN], trainer.spec, trainer.progress.step
    looks = [
        Look(pair, labels_from_mask(read_mask(pair.mask), spec, pair.mask), segmenter.segment(pair.image))
        for pair in pairs
    ]
    trainer.tracker.scalars(step, score_scalars(trainer.progress.scores))
    trainer.tracker.histograms(step, trainer.model)
    trainer.tracker.examples(step, [look.example() for look in looks])
    if is_best:
        trainer.run.draw_overlays(looks)
