"""Class weights from how many pixels each class has."""

from __future__ import annotations

from collections.abc import Sequence
from statistics import median

__all__ = ["balanced_weights"]

MOST = 10.0  # times the median class; a class of a few pixels would otherwise make each of them decide a step


def balanced_weights(pixel_counts: Sequence[int]) -> tuple[float, ...]:
    """Median-frequency balancing: the median class's share divided by each class's, between 1/10 and 10.

    The median is that of the classes that occur; a class without a pixel gets 1, which nothing ever uses.
    Source: Eigen and Fergus, "Predicting Depth, Surface Normals and Semantic Labels with a Common Multi-Scale
    Convolutional Architecture" (ICCV 2015), section 4.3.2, over all pixels instead of those of the images that
    hold the class; the bounds are ours.

    Args:
        pixel_counts: pixels of each class, in the order of the labels.
    """
    present = [count for count in pixel_counts if count > 0]
    if not present:
        return (1.0,) * len(pixel_counts)
    middle = median(present)
    return tuple(min(MOST, max(1 / MOST, middle / count)) if count > 0 else 1.0 for count in pixel_counts)
