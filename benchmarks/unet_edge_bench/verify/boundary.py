"""Do two label maps draw the same outlines?"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["BOUNDARY_TOLERANCE", "Boundary", "boundary_agreement", "boundary_pixels"]

BOUNDARY_TOLERANCE = 0.0075
"""Of the image's diagonal: outlines this close count as the same (Csurka et al., "What is a good evaluation measure for
semantic segmentation?", BMVC 2013); at least one pixel."""

NOWHERE = np.int32(1 << 29)  # a place further away than any image is long


@dataclass
class Boundary:
    """Counts of boundary pixels, of the reference and of the candidate, and of those near the other's.

    Unlike Csurka's measure, which is one a class, a boundary is where any two labels meet.
    """

    reference: int = 0
    reference_near: int = 0
    candidate: int = 0
    candidate_near: int = 0

    def merge(self, other: Boundary) -> None:
        """Count the pixels of `other` too."""
        self.reference += other.reference
        self.reference_near += other.reference_near
        self.candidate += other.candidate
        self.candidate_near += other.candidate_near

    @property
    def f1(self) -> float | None:
        """Harmonic mean of the two shares, 0..1; None where neither has a boundary."""
        if not self.reference and not self.candidate:
            return None
        if not self.reference_near or not self.candidate_near:
            return 0.0
        recall, precision = self.reference_near / self.reference, self.candidate_near / self.candidate
        return 2 * precision * recall / (precision + recall)


def boundary_agreement(reference: NDArray[np.uint8], candidate: NDArray[np.uint8]) -> Boundary:
    """Compare the outlines of two label maps (H, W) of one size."""
    ours = boundary_pixels(reference)
    count = int(ours.sum())
    if (reference == candidate).all():
        return Boundary(count, count, count, count)
    theirs = boundary_pixels(candidate)
    tolerance = max(1.0, BOUNDARY_TOLERANCE * math.hypot(*reference.shape))
    near_theirs, near_ours = _near(ours, theirs, tolerance), _near(theirs, ours, tolerance)
    return Boundary(count, near_theirs, int(theirs.sum()), near_ours)


def boundary_pixels(labels: NDArray[np.uint8]) -> NDArray[np.bool_]:
    """Pixels with a horizontal or vertical neighbour of another label."""
    edge = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edge[:, 1:] |= across
    edge[:, :-1] |= across
    edge[1:] |= down
    edge[:-1] |= down
    return edge


def _near(pixels: NDArray[np.bool_], targets: NDArray[np.bool_], tolerance: float) -> int:
    """How many of `pixels` have one of `targets` within `tolerance` pixels (Euclidean, exact)."""
    distance = _distance_in_row(targets)
    y, x = np.nonzero(pixels)
    found = np.zeros(len(y), bool)
    for step in range(-int(tolerance), int(tolerance) + 1):
        inside = (y + step >= 0) & (y + step < len(pixels))
        reach = math.sqrt(tolerance**2 - step**2)
        found[inside] |= distance[y[inside] + step, x[inside]] <= reach
    return int(found.sum())


def _distance_in_row(targets: NDArray[np.bool_]) -> NDArray[np.int32]:
    """Pixels from each place to the nearest target in the same row."""
    place = np.arange(targets.shape[1], dtype=np.int32)
    left = np.maximum.accumulate(np.where(targets, place, -NOWHERE), axis=1)
    right = np.minimum.accumulate(np.where(targets, place, NOWHERE)[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(place - left, right - place).astype(np.int32)
