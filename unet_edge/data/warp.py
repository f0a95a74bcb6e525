"""One resampling for all of an item's geometry: crop, scale, rotation, shear, elastic deformation."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional as F

from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec
from unet_edge_runtime.transform import normalise

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Warp", "draw_window", "warped"]

CELLS = 4  # elastic control points along the shorter side
LIMIT = 2.0  # of their displacement, in standard deviations
OVERSHOOT = 1.5  # bicubic interpolation between control points goes beyond them by less than this
STEPS = 24  # bicubic places a control point; bilinear between these looks the same and takes a quarter of the time

Window = tuple[slice, slice]
"""Rows and columns of an image."""


@dataclass(frozen=True)
class Warp:
    """How far an image may be moved.

    Attributes:
        probability: share of the items that are moved at all.
        zoom: (smallest, largest) magnification.
        degrees: largest rotation, either way.
        shear: largest shear in degrees, either way.
        shift: largest translation as a share of the side, either way.
        elastic: standard deviation of the control points' displacement as a share of the shorter side.
    """

    probability: float
    zoom: tuple[float, float]
    degrees: float
    shear: float = 0.0
    shift: float = 0.0
    elastic: float = 0.0


def draw_window(choice: random.Random, size: tuple[int, int], crop: tuple[int, int] | None) -> Window:
    """Where an image of `size` is cropped, all places equally likely; a side shorter than the crop's stays whole."""
    crop = crop or size
    tops = [choice.randint(0, max(0, side - wanted)) for side, wanted in zip(size, crop, strict=True)]
    return slice(tops[0], min(size[0], tops[0] + crop[0])), slice(tops[1], min(size[1], tops[1] + crop[1]))


def warped(
    prepared: NDArray[np.generic], window: Window, warp: Warp, choice: random.Random, plain: ModelSpec
) -> tuple[Tensor, NDArray[np.uint8]]:
    """A window of an image as it looks after a random movement around the window's centre.

    Only the part of the image that it shows is converted. Beyond the image's edge its mirror image is shown, and the
    labels are ignored, because nobody drew what is there.

    Args:
        prepared: (H, W, C + 1): channels and labels.
        window: which part, before it is moved.
        warp: how far.
        choice: drawn from.
        plain: a spec without mean and standard deviation.

    Returns:
        (C, h, w) float32, normally in [0, 1], interpolated bilinearly, and (h, w) labels of the nearest pixel.
    """
    size = window[0].stop - window[0].start, window[1].stop - window[1].start
    matrix = _draw_matrix(warp, window, choice)
    bend = warp.elastic * min(size)
    part = _part_shown(matrix, size, prepared.shape[:2], LIMIT * OVERSHOOT * bend + 2)
    grid = _grid(matrix, size, part)
    if bend:
        grid = grid + _bends(size, bend, part, choice)
    image = torch.from_numpy(normalise(prepared[part][:, :, :-1], plain))[None]
    image = F.grid_sample(image, grid, mode="bilinear", padding_mode="reflection", align_corners=False)
    # Labels minus IGNORE_LABEL, so that the zeros from outside come out as ignored.
    labels = torch.from_numpy(prepared[part][:, :, -1].astype(np.float32))[None, None] - IGNORE_LABEL
    labels = F.grid_sample(labels, grid, mode="nearest", padding_mode="zeros", align_corners=False) + IGNORE_LABEL
    return image[0], labels[0, 0].to(torch.uint8).numpy()


def _draw_matrix(warp: Warp, window: Window, choice: random.Random) -> Tensor:
    """(3, 3) float64: from pixels of the window to pixels of the image, (x, y, 1) both, centres at halves."""
    from kornia.geometry.transform import get_affine_matrix2d

    height, width = (side.stop - side.start for side in window)
    smallest, largest = map(math.log, warp.zoom)
    zoom = math.exp(choice.uniform(smallest, largest))
    angle = choice.uniform(-warp.degrees, warp.degrees)
    shear = [math.radians(choice.uniform(-warp.shear, warp.shear)) for _ in "xy"]
    shift = [choice.uniform(-warp.shift, warp.shift) * side for side in (width, height)]
    moved = get_affine_matrix2d(
        translations=_row(*shift),
        center=_row(width / 2, height / 2),
        scale=_row(zoom, zoom),
        angle=torch.tensor([angle], dtype=torch.float64),
        sx=torch.tensor([shear[0]], dtype=torch.float64),
        sy=torch.tensor([shear[1]], dtype=torch.float64),
    )[0]
    back = torch.linalg.inv(moved)
    back[0, 2] += window[1].start
    back[1, 2] += window[0].start
    return back


def _row(*numbers: float) -> Tensor:
    return torch.tensor([numbers], dtype=torch.float64)


def _part_shown(matrix: Tensor, size: tuple[int, int], whole: tuple[int, ...], margin: float) -> Window:
    """The rows and columns of the image that the window's corners span, and a margin; at least one pixel."""
    height, width = size
    corners = matrix @ torch.tensor([[0, width, 0, width], [0, 0, height, height], [1, 1, 1, 1]], dtype=torch.float64)
    spans = []
    for values, side in zip((corners[1], corners[0]), whole, strict=True):
        low = min(max(0, math.floor(float(values.min()) - margin)), side - 1)
        spans.append(slice(low, max(low + 1, min(side, math.ceil(float(values.max()) + margin)))))
    return spans[0], spans[1]


def _grid(matrix: Tensor, size: tuple[int, int], part: Window) -> Tensor:
    """(1, h, w, 2) float32: where in the part each pixel of the window is taken from, in -1..1 from edge to edge."""
    (height, width), (rows, columns) = size, part
    to_pixels = torch.tensor([[width / 2, 0, width / 2], [0, height / 2, height / 2], [0, 0, 1]], dtype=torch.float64)
    wide, high = columns.stop - columns.start, rows.stop - rows.start
    to_part = torch.tensor(
        [[2 / wide, 0, -2 * columns.start / wide - 1], [0, 2 / high, -2 * rows.start / high - 1], [0, 0, 1]],
        dtype=torch.float64,
    )
    theta = (to_part @ matrix @ to_pixels)[None, :2].float()
    return F.affine_grid(theta, [1, 1, height, width], align_corners=False)


def _bends(size: tuple[int, int], bend: float, part: Window, choice: random.Random) -> Tensor:
    """(1, h, w, 2): smooth displacements, drawn at a few control points (Simard et al. 2003; Ronneberger 2015)."""
    short = min(size)
    points = [max(2, round(CELLS * side / short)) for side in size]
    drawn = torch.randn((1, 2, *points), generator=torch.Generator().manual_seed(choice.getrandbits(63)))
    sides = torch.tensor([part[1].stop - part[1].start, part[0].stop - part[0].start])
    moves = drawn.clamp(-LIMIT, LIMIT) * (2 * bend / sides)[:, None, None]
    steps = [min(side, STEPS * count) for side, count in zip(size, points, strict=True)]
    moves = F.interpolate(moves, steps, mode="bicubic", align_corners=False)
    return F.interpolate(moves, size, mode="bilinear", align_corners=False).permute(0, 2, 3, 1)
