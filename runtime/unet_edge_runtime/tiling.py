"""An image larger than a fixed-size network: tiles that overlap, blended where they do."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["run_tiled", "tile_starts"]

OVERLAP = 0.25  # of a tile's side; at least half the receptive field would be exact, and costs far more


def tile_starts(length: int, tile: int) -> list[int]:
    """First pixels of the tiles along one side: evenly spread, the last one ends exactly at `length`."""
    if length <= tile:
        return [0]
    count = int(np.ceil((length - tile) / (tile * (1 - OVERLAP)))) + 1
    return [round(i * (length - tile) / (count - 1)) for i in range(count)]


def run_tiled(
    x: NDArray[np.float32], tile: tuple[int, int], run: Callable[[NDArray[np.float32]], NDArray[np.float32]]
) -> NDArray[np.float32]:
    """Run a fixed-size network over a larger image.

    Args:
        x: (C, H, W), each side at least the tile's.
        tile: (height, width) of the network's input.
        run: (C, *tile) -> (K, *tile).

    Returns:
        (K, H, W): the weighted mean of the tiles, weights falling towards each tile's border.
    """
    height, width = x.shape[-2:]
    weight = np.minimum.outer(_ramp(tile[0]), _ramp(tile[1]))
    total: NDArray[np.float32] | None = None
    weights = np.zeros((height, width), np.float32)
    for top in tile_starts(height, tile[0]):
        for left in tile_starts(width, tile[1]):
            window = (slice(None), slice(top, top + tile[0]), slice(left, left + tile[1]))
            output = run(x[window])
            if total is None:
                total = np.zeros((len(output), height, width), np.float32)
            total[window] += output * weight
            weights[window[1:]] += weight
    assert total is not None
    return total / weights


def _ramp(length: int) -> NDArray[np.float32]:
    """1 .. length/2 .. 1: the distance to the nearer border, never 0."""
    return np.minimum(np.arange(1, length + 1), np.arange(length, 0, -1)).astype(np.float32)
