"""How well the edges of a mask follow those of an image, here, elsewhere, mirrored and turned."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["TURNS", "Fit", "edge_ranks", "fit_here", "mask_edges", "measure_fit"]

TURNS: dict[str, Callable[[NDArray[np.bool_]], NDArray[np.bool_]]] = {
    "mirrored left to right": np.fliplr,
    "mirrored top to bottom": np.flipud,
    "mirrored both ways": partial(np.rot90, k=2),
    "mirrored at the diagonal (rows and columns exchanged)": np.transpose,
    "turned a quarter to the left": np.rot90,
    "turned a quarter to the right": partial(np.rot90, k=-1),
}
"""Ways to mirror or turn a mask; the first three keep any shape, the others only that of a square."""

NEAR = 2  # pixels of the reduced picture: a drawn outline is no nearer to the true one
LEAST_EDGE = 32  # pixels: fewer say nothing
BINS = 512


@dataclass(frozen=True)
class Fit:
    """Mean edge rank of the image under the outline of the mask, less that of the whole image: -0.5 to 0.5.

    Attributes:
        here: with the mask where it is, up to `NEAR` pixels.
        best: with the mask moved to where it fits best.
        move: that place, (down, right) in shares of the picture's sides.
        turned: as `here` for each of `TURNS` that keeps the mask's shape.
    """

    here: float
    best: float
    move: tuple[float, float]
    turned: tuple[float, ...]


def edge_ranks(picture: NDArray[np.float32]) -> NDArray[np.float32]:
    """(h, w) strength of edges in a (h, w, C) picture as ranks from 0 to 1: contrast and lighting do not matter."""
    step = np.zeros((2, *picture.shape), np.float32)
    step[0, :, 1:-1] = picture[:, 2:] - picture[:, :-2]
    step[1, 1:-1] = picture[2:] - picture[:-2]
    strength = np.sqrt((step**2).sum(axis=0)).max(axis=2)
    top = float(strength.max())
    if top == 0:
        return np.full(strength.shape, 0.5, np.float32)
    # Roots spread the many weak edges over more bins.
    bins = np.minimum(np.sqrt(strength / top) * BINS, BINS - 1).astype(np.int64)
    counts = np.bincount(bins.ravel(), minlength=BINS)
    ranks = (np.cumsum(counts) - counts / 2) / bins.size
    return ranks[bins].astype(np.float32)


def mask_edges(labels: NDArray[np.integer]) -> NDArray[np.bool_]:
    """Pixels of (h, w) labels on either side of an outline."""
    edges = np.zeros(labels.shape, bool)
    across, down = labels[:, 1:] != labels[:, :-1], labels[1:] != labels[:-1]
    edges[:, 1:] |= across
    edges[:, :-1] |= across
    edges[1:] |= down
    edges[:-1] |= down
    return edges


def measure_fit(ranks: NDArray[np.float32], edges: NDArray[np.bool_]) -> Fit | None:
    """Try the mask everywhere at once: the cross-correlation of outline and edge ranks, by Fourier transform.

    Args:
        ranks: (h, w) of `edge_ranks`.
        edges: (h, w) of `mask_edges`, of the same size.

    Returns:
        The fit, or None for a mask with next to no outline.
    """
    if edges.sum() < LEAST_EDGE:
        return None
    correlation = _correlation(ranks - ranks.mean(), edges)
    height, width = edges.shape
    place = divmod(int(correlation.argmax()), correlation.shape[1])
    down, right = ((at + side // 2) % side - side // 2 for at, side in zip(place, correlation.shape, strict=True))
    turned = [mask for turn in TURNS.values() if (mask := turn(edges)).shape == edges.shape]
    here, best = fit_here(ranks, edges), float(correlation.max())
    return Fit(here, max(here, best), (down / height, right / width), tuple(fit_here(ranks, mask) for mask in turned))


def fit_here(ranks: NDArray[np.float32], edges: NDArray[np.bool_]) -> float:
    """`Fit.here` alone; of no outline 0."""
    if not edges.any():
        return 0.0
    mean = float(ranks.mean())
    padded = np.pad(ranks - mean, NEAR)
    rows, columns = np.nonzero(edges)
    around = range(2 * NEAR + 1)
    return max(float(padded[rows + down, columns + right].mean()) for down in around for right in around)


def _correlation(ranks: NDArray[np.float32], edges: NDArray[np.bool_]) -> NDArray[np.float64]:
    """Mean of `ranks` under the outline for every move of it, down and right, round the edges of the picture."""
    size = [-(-side // 32) * 32 for side in edges.shape]  # Fourier transforms of prime sizes are slow
    image, outline = np.fft.rfft2(ranks, s=size), np.fft.rfft2(edges, s=size)
    moves: NDArray[np.float64] = np.fft.irfft2(image * outline.conj(), s=size) / edges.sum()
    return moves
