"""How sure the reference was where a candidate's label differs."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unet_edge_runtime.spec import ModelSpec

from .sides import Output

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SURE", "Flips", "reference_margins"]

SURE = 0.9
"""Probability of the reference's own label from which a flip is a contradiction, not a coin that fell otherwise."""

MARGINS = np.arange(1 << 15, dtype=np.uint16).view(np.float16)  # every half-precision number from 0 up, sorted
LARGEST = 65504.0  # finite in half precision


@dataclass
class Flips:
    """Pixels whose label differs.

    Attributes:
        count: of them, those with a known margin.
        sure: how many of those the reference was sure of.
        largest: the largest margin.
        histogram: how many have each of the margins in `MARGINS`: the median of any number of pixels, to 0.05 %.
    """

    count: int = 0
    sure: int = 0
    largest: float = 0.0
    histogram: NDArray[np.int64] = field(default_factory=lambda: np.zeros(len(MARGINS), np.int64), repr=False)

    def add(self, margins: NDArray[np.float32], sure: NDArray[np.bool_]) -> None:
        """Count flipped pixels: the reference's margin at each, and whether it was sure; NaN counts as 0."""
        margins = np.abs(np.nan_to_num(margins, nan=0.0)).clip(0, LARGEST)  # -0.0 is another bit pattern
        self.count += margins.size
        self.sure += int(sure.sum())
        self.largest = max(self.largest, float(margins.max(initial=0.0)))
        self.histogram += np.bincount(margins.astype(np.float16).view(np.uint16), minlength=len(MARGINS))

    def merge(self, other: Flips) -> None:
        """Count the pixels of `other` too."""
        self.count += other.count
        self.sure += other.sure
        self.largest = max(self.largest, other.largest)
        self.histogram += other.histogram

    @property
    def median(self) -> float | None:
        """The median margin (the lower one of an even number); None where nothing flipped."""
        if not self.count:
            return None
        return float(MARGINS[np.searchsorted(self.histogram.cumsum(), (self.count + 1) // 2)])

    def to_dict(self) -> dict[str, Any]:
        """Plain data: in units of the reference's output."""
        return {"sure": self.sure, "margin_median": self.median, "margin_largest": self.largest if self.count else None}


def reference_margins(
    output: Output, spec: ModelSpec, labels: NDArray[np.uint8], where: NDArray[np.bool_]
) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    """The reference's margin at some pixels, and whether it was sure of its label there.

    The margin is the distance between the two highest outputs; of a two-class model, between what the threshold is
    held against and the threshold.

    Args:
        output: the reference's.
        spec: the reference's; its head is not a class map.
        labels: (H, W), the reference's.
        where: (H, W), the pixels.

    Returns:
        Two arrays of as many numbers as there are pixels.
    """
    planes = output.values
    if not spec.is_binary:
        return _between_two_highest(np.stack([_at(p, output.size, where) for p in planes]), spec.head)
    if spec.outputs == 2:
        planes = planes[1:] if spec.head == "probabilities" else planes[1:] - planes[:1]
    value = _at(planes[0], output.size, where)
    limit = spec.threshold if spec.head == "probabilities" else math.log(spec.threshold / (1 - spec.threshold))
    positive = value if spec.head == "probabilities" else 0.5 + 0.5 * np.tanh(value / 2)
    return np.abs(value - limit), np.where(labels[where] == 1, positive, 1 - positive) >= SURE


def _between_two_highest(values: NDArray[np.float32], head: str) -> tuple[NDArray[np.float32], NDArray[np.bool_]]:
    highest = np.partition(values, -2, axis=0)[-2:]
    if head == "probabilities":
        probability = highest[1] / values.sum(axis=0)
    else:
        probability = 1 / np.exp(values - highest[1]).sum(axis=0)
    return highest[1] - highest[0], probability >= SURE


def _at(plane: NDArray[np.float32], size: tuple[int, int], where: NDArray[np.bool_]) -> NDArray[np.float32]:
    """A plane at the image's size, as `postprocess` interpolates it, at some pixels."""
    if plane.shape != size:
        resized = Image.fromarray(np.ascontiguousarray(plane)).resize((size[1], size[0]), Image.Resampling.BILINEAR)
        plane = np.asarray(resized)
    return plane[where]
