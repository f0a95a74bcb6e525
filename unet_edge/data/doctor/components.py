"""Connected components of a mask, from runs of equal pixels."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["object_areas"]


def object_areas(mask: NDArray[np.integer]) -> dict[int, NDArray[np.int64]]:
    """Areas of the objects of every value: neighbours of equal value, diagonal ones included, are one object.

    Rows are cut into runs of one value, of which a mask has a hundred times fewer than pixels; runs that touch in
    neighbouring rows are joined by their roots, all at once (Shiloach and Vishkin, J. Algorithms 3, 1982).

    Args:
        mask: (H, W) whole numbers.

    Returns:
        Sorted areas in pixels, by value.
    """
    width = mask.shape[1]
    flat = mask.ravel()
    new = np.empty(flat.size, bool)
    new[1:] = flat[1:] != flat[:-1]
    new[::width] = True
    starts = np.flatnonzero(new)
    lengths = np.diff(starts, append=flat.size)
    values = flat[starts]
    roots = _join(len(starts), *_touching(starts, lengths, values, width, flat.size))
    places, inverse = np.unique(roots, return_inverse=True)
    areas = np.bincount(inverse.ravel(), weights=lengths).astype(np.int64)
    owners = values[places]
    return {int(value): np.sort(areas[owners == value]) for value in np.unique(owners)}


def _touching(
    starts: NDArray[np.int64], lengths: NDArray[np.int64], values: NDArray[np.integer], width: int, size: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Pairs of runs of one value in neighbouring rows, as numbers of the upper and the lower run."""
    upper = np.flatnonzero(starts + width < size)
    column = starts[upper] % width
    row = starts[upper] - column + width
    # One column further on either side: diagonal neighbours touch.
    left = row + np.maximum(column - 1, 0)
    right = row + np.minimum(column + lengths[upper], width - 1)
    first = np.searchsorted(starts, left, side="right") - 1
    count = np.searchsorted(starts, right, side="right") - first
    above = np.repeat(upper, count)
    below = np.arange(count.sum()) - np.repeat(np.cumsum(count) - count, count) + np.repeat(first, count)
    same = values[above] == values[below]
    return above[same], below[same]


def _join(count: int, first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """The root of each of `count` items when `first` and `second` belong together."""
    parent = np.arange(count)
    while True:
        one, other = parent[first], parent[second]
        apart = one != other
        if not apart.any():
            return parent
        first, second, one, other = first[apart], second[apart], one[apart], other[apart]
        np.minimum.at(parent, np.maximum(one, other), np.minimum(one, other))
        while not np.array_equal(grand := parent[parent], parent):
            parent = grand
