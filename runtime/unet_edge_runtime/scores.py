"""Scores from one confusion matrix: Dice, IoU, pixel accuracy, and how far two paths agree."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from .spec import IGNORE_LABEL

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .spec import ModelSpec

__all__ = ["Agreement", "ConfusionMatrix"]


class ConfusionMatrix:
    """Counts of pixels by (true label, predicted label), summed over images.

    A class that is neither in the truth nor in the prediction has no score: None, never 1.0.

    Args:
        classes: number of classes.
    """

    def __init__(self, classes: int) -> None:
        self.counts: NDArray[np.int64] = np.zeros((classes, classes), np.int64)

    def add(self, truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> ConfusionMatrix:
        """Count one image: two arrays of labels of the same shape; `IGNORE_LABEL` in the truth does not count."""
        if truth.shape != predicted.shape:
            raise ValueError(f"shapes differ: truth {truth.shape}, predicted {predicted.shape}")
        if truth.dtype.itemsize != 1 or predicted.dtype.itemsize != 1:
            raise ValueError(f"labels must be uint8, not {truth.dtype} and {predicted.dtype}")
        classes = len(self.counts)
        joint = np.bincount((truth.astype(np.uint16) << 8 | predicted).ravel(), minlength=1 << 16)
        table = joint.reshape(256, 256)
        if table[:classes, classes:].any() or table[classes:IGNORE_LABEL].any():
            raise ValueError(f"labels outside 0..{classes - 1}")
        self.counts += table[:classes, :classes]
        return self

    @property
    def dice(self) -> list[float | None]:
        """Dice per class: 2 |A and B| / (|A| + |B|)."""
        hits, truth, predicted = self._margins()
        return [_ratio(2 * h, t + p) for h, t, p in zip(hits, truth, predicted, strict=True)]

    @property
    def iou(self) -> list[float | None]:
        """Intersection over union (Jaccard index) per class."""
        hits, truth, predicted = self._margins()
        return [_ratio(h, t + p - h) for h, t, p in zip(hits, truth, predicted, strict=True)]

    @property
    def pixel_accuracy(self) -> float | None:
        """Share of the counted pixels whose label is right."""
        return _ratio(int(np.trace(self.counts)), self.pixels)

    @property
    def pixel_error(self) -> float | None:
        """Share of the counted pixels whose label is wrong: one minus the pixel accuracy."""
        return _ratio(self.pixels - int(np.trace(self.counts)), self.pixels)

    @property
    def pixels(self) -> int:
        """Counted pixels; those to ignore are not among them."""
        return int(self.counts.sum())

    @property
    def true_pixels(self) -> list[int]:
        """Pixels of each class in the truth."""
        return self._margins()[1]

    @property
    def predicted_pixels(self) -> list[int]:
        """Pixels that were taken for each class, ignored ones left out."""
        return self._margins()[2]

    def mean(self, scores: list[float | None], leave_out: int | None = None) -> float | None:
        """Mean over the classes that have a score, without label `leave_out`."""
        present = [s for label, s in enumerate(scores) if s is not None and label != leave_out]
        return sum(present) / len(present) if present else None

    def summary(self, spec: ModelSpec, include_background: bool = False) -> dict[str, Any]:
        """The scores as plain data: `dice`, `iou`, `pixel_accuracy`, `pixel_error` and `classes`.

        The means leave out the spec's background class unless asked for it.
        """
        leave_out = None if include_background else spec.background
        dice, iou = self.dice, self.iou
        return {
            "dice": self.mean(dice, leave_out),
            "iou": self.mean(iou, leave_out),
            "pixel_accuracy": self.pixel_accuracy,
            "pixel_error": self.pixel_error,
            "background_in_mean": leave_out is None,
            "classes": [
                {"name": name, "dice": d, "iou": i} for name, d, i in zip(spec.class_names, dice, iou, strict=True)
            ],
        }

    def _margins(self) -> tuple[list[int], list[int], list[int]]:
        c = self.counts
        return np.diag(c).tolist(), c.sum(axis=1).tolist(), c.sum(axis=0).tolist()


@dataclass
class Agreement:
    """How far a candidate's outputs are from a reference's, over the images given to `add`.

    Attributes:
        max_difference: largest absolute difference of two logits (0 when none was added).
        pixels: labels compared.
        flipped: labels that differ.
        images: images compared.
        compared_logits: False when the candidate returns labels only.
        confusion: of the labels, the reference's being the truth.
    """

    max_difference: float = 0.0
    pixels: int = 0
    flipped: int = 0
    images: int = 0
    compared_logits: bool = True
    confusion: ConfusionMatrix = field(default_factory=lambda: ConfusionMatrix(IGNORE_LABEL), repr=False, compare=False)

    def add(
        self,
        reference: NDArray[np.float32],
        candidate: NDArray[np.float32] | None,
        reference_labels: NDArray[np.uint8],
        candidate_labels: NDArray[np.uint8],
    ) -> None:
        """Compare one image: outputs (K, H, W), or None where they are of another kind, and labels (H, W).

        Raises:
            ValueError: shapes that differ.
        """
        pairs = [(reference_labels, candidate_labels)] + ([] if candidate is None else [(reference, candidate)])
        for ours, theirs in pairs:
            if ours.shape != theirs.shape:
                raise ValueError(f"shapes differ: reference {ours.shape}, candidate {theirs.shape}")
        if candidate is None:
            self.compared_logits = False
        else:
            with np.errstate(invalid="ignore"):
                difference = float(np.abs(reference - candidate).max())
            # NaN compares false with everything: it must not pass for agreement.
            self.max_difference = max(self.max_difference, difference if np.isfinite(difference) else np.inf)
        self.pixels += reference_labels.size
        self.flipped += int((reference_labels != candidate_labels).sum())
        self.images += 1
        self.confusion.add(reference_labels, candidate_labels)

    def merge(self, other: Agreement) -> None:
        """Count the images of `other`, of the same number of classes, too."""
        self.max_difference = max(self.max_difference, other.max_difference)
        self.pixels += other.pixels
        self.flipped += other.flipped
        self.images += other.images
        self.compared_logits = self.compared_logits and other.compared_logits
        self.confusion.counts += other.confusion.counts

    @property
    def dice(self) -> float | None:
        """Mean Dice of the classes that occur, the reference's labels being the truth; None where nothing was added."""
        return self.confusion.mean(self.confusion.dice)

    @property
    def equal_labels(self) -> float:
        """Share of equal labels, 0..1."""
        return 1 - self.flipped / self.pixels if self.pixels else 0.0

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "max_logit_difference": self.max_difference if self.compared_logits else None,
            "equal_labels": self.equal_labels,
            "dice": self.dice,
            "images": self.images,
            "pixels": self.pixels,
        }


def _ratio(part: int, whole: int) -> float | None:
    return part / whole if whole else None
