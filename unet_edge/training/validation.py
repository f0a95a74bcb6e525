"""What a run does with its validation images: score them, and show the first few."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_edge.evaluation import evaluate
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.segmenter import Segmenter

from .tracking import Example, score_scalars

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unet_edge.data.pairing import Pair
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
    """The trainer's network on all of its validation images, each process its share; the same in every process."""
    world, pairs = trainer.world, trainer.split.val
    world.share(trainer.result)
    segmenter = Segmenter(TorchBackend.from_model(trainer.result, trainer.spec, trainer.device))
    # Where training had to go in smaller parts, so must this.
    parts = max(1, trainer.config.batch_size // trainer.engine.micro)
    batch = parts if trainer.device.type == "cuda" else 1
    with trainer.reporter.validating(len(pairs[world.rank :: world.size])) as seen:
        matrix = evaluate(segmenter, pairs, shard=(world.rank, world.size), batch=batch, on_image=seen)
    matrix.counts = world.all_sum(matrix.counts)
    return segmenter, matrix.summary(trainer.spec)


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
