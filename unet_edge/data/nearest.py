"""Masks at another size, where they were on their images."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["mask_at"]


def mask_at(size: tuple[int, int], mask: NDArray[np.unsignedinteger]) -> NDArray[np.unsignedinteger]:
    """A mask (H, W) at another (height, width): of each new pixel the old one in which its centre lies."""
    rows, columns = (_centres(old, new) for old, new in zip(mask.shape, size, strict=True))
    return mask[rows[:, None], columns]


def _centres(old: int, new: int) -> NDArray[np.int64]:
    """(new,) the old pixels in which the centres of the new ones lie.

    At half the size every centre lies between two old pixels. Taking the latter each time, as Pillow does, would move
    all masks by half a pixel against their images, and a network would learn that; here each of the two has its turn.
    """
    place = np.arange(new)
    return ((2 * place + 1) * old - place % 2) // (2 * new)
