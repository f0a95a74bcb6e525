"""Two models against the true masks: Dice and IoU, and whether their difference is more than chance."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_bench.stats import expansion
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.spec import ModelSpec

from .sides import Sample

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["RESAMPLES", "Scores", "difference_interval", "true_labels"]

RESAMPLES = 2000
CONFIDENCE = 0.95


@dataclass
class Scores:
    """One model's counts, image by image: of each class the pixels hit, true and predicted."""

    spec: ModelSpec
    matrix: ConfusionMatrix = field(init=False)
    images: list[NDArray[np.int64]] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.matrix = ConfusionMatrix(len(self.spec.classes))

    def add(self, truth: NDArray[np.uint8], labels: NDArray[np.uint8]) -> None:
        """Count one image."""
        counts = ConfusionMatrix(len(self.spec.classes)).add(truth, labels).counts
        self.matrix.counts += counts
        self.images.append(np.stack([np.diag(counts), counts.sum(axis=1), counts.sum(axis=0)]))

    def summary(self) -> dict[str, Any]:
        """As `ConfusionMatrix.summary`."""
        return self.matrix.summary(self.spec)


def true_labels(sample: Sample, spec: ModelSpec, size: tuple[int, int]) -> NDArray[np.uint8]:
    """The labels of a sample's mask. Raises `InputError` where it cannot be read or has another size."""
    assert sample.mask is not None
    labels = labels_from_mask(read_mask(sample.mask), spec, sample.mask)
    if labels.shape != size:
        raise InputError(f"{sample.mask}: its size {labels.shape} differs from that of {sample.name}, {size}")
    return labels


def difference_interval(reference: Scores, candidate: Scores, seed: int) -> dict[str, Any] | None:
    """Candidate minus reference, with the bootstrap's interval over images; None for fewer than two images.

    Images are drawn with replacement, the same for both models, and their pixels counted together, as the scores are
    (Efron and Tibshirani, "An Introduction to the Bootstrap", 1993, chapter 13). The percentile interval is widened
    for few images by `stats.expansion`.
    """
    count = len(reference.images)
    if count < 2:
        return None
    drawn = np.random.default_rng(seed).multinomial(count, [1 / count] * count, size=RESAMPLES)
    ours, theirs = _resampled(reference, drawn), _resampled(candidate, drawn)
    found = {}
    for name in ("dice", "iou"):
        low, high = np.quantile(theirs[name] - ours[name], [(1 - CONFIDENCE) / 2, (1 + CONFIDENCE) / 2])
        difference = (candidate.summary()[name] or 0.0) - (reference.summary()[name] or 0.0)
        below, above = max(0.0, difference - float(low)), max(0.0, float(high) - difference)
        wider = expansion(count)
        found[name] = {"difference": difference, "low": difference - wider * below, "high": difference + wider * above}
    return {**found, "confidence": CONFIDENCE, "resamples": RESAMPLES, "seed": seed, "images": count}


def _resampled(scores: Scores, drawn: NDArray[np.int64]) -> dict[str, NDArray[np.float64]]:
    """Mean Dice and IoU, without the background, of each resample."""
    counts = np.stack(scores.images).astype(np.float64)
    kept = [label for label in range(counts.shape[2]) if label != scores.spec.background]
    hits, truth, predicted = (drawn @ counts[:, row][:, kept] for row in range(3))
    with np.errstate(invalid="ignore", divide="ignore"):
        each = {"dice": 2 * hits / (truth + predicted), "iou": hits / (truth + predicted - hits)}
    return {name: _mean(values) for name, values in each.items()}


def _mean(values: NDArray[np.float64]) -> NDArray[np.float64]:
    """Over the classes that a resample has; 0 where it has none."""
    present = np.isfinite(values)
    return np.where(present, values, 0).sum(axis=1) / np.maximum(present.sum(axis=1), 1)
