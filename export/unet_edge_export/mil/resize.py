"""Resizing of the last two sides, by the grid of points that MIL defines for each sampling mode.

With n samples in and m out, output i is read at the point (coremltools' MIL reference, `resize_bilinear`):

    STRICT_ALIGN_CORNERS   i (n - 1) / (m - 1), and 0 for m = 1
    ALIGN_CORNERS          the same, but (n - 1) / 2 for m = 1
    UNALIGN_CORNERS        (i + 0.5) n / m - 0.5          (half pixel centres)
    DEFAULT                i n / m
    OFFSET_CORNERS         (i + 0.5) max(1, n - 1) / m

Points are clamped to the samples. Where PyTorch has the same grid its kernel is used; tests hold both together.
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Kernel, rank_of

__all__ = ["RESIZERS", "grid_points", "linear"]

_MODES = ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS")


def upsample_bilinear(call: Call) -> Tensor:
    """By factors; the result's size is rounded down and the grid follows from it."""
    if call.flag("align_corners", True):
        mode = "STRICT_ALIGN_CORNERS"
    else:
        mode = "UNALIGN_CORNERS" if call.flag("half_pixel_centers", True) else "DEFAULT"
    return linear(call.tensor("x"), _scaled(call), mode)


def upsample_nearest_neighbor(call: Call) -> Tensor:
    """By factors; whole ones repeat each value."""
    return _nearest(call.tensor("x"), _scaled(call), "DEFAULT")


def resize_bilinear(call: Call) -> Tensor:
    """To a size, with any of the sampling modes."""
    return linear(call.tensor("x"), _target(call), call.text("sampling_mode", _MODES, "DEFAULT"))


def resize_nearest_neighbor(call: Call) -> Tensor:
    """To a size."""
    return _nearest(call.tensor("x"), _target(call), "DEFAULT")


def resize(call: Call) -> Tensor:
    """iOS 17: to the last `resized_dims` sides of `shape`, of which 0 keeps a side."""
    x, wanted = call.tensor("x"), call.integers("shape", low=0)
    count = call.integer("resized_dims", low=1)
    if count > min(2, len(wanted), x.ndim):
        raise ValueError(f"it resizes {count} sides: only the last two can be")
    kept = list(x.shape[-count:])
    sides = [side or before for side, before in zip(wanted[-count:], kept, strict=True)]
    size = (sides[0], sides[1]) if count == 2 else (x.shape[-2], sides[0])
    _expect_size(call, x, size)
    mode = call.text("sampling_mode", _MODES, "DEFAULT")
    if call.text("interpolation_mode", ("LINEAR", "NEAREST_NEIGHBOR"), "LINEAR") == "LINEAR":
        return linear(x, size, mode)
    return _nearest(x, size, mode)


def linear(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    """Resize by linear interpolation along both of the last sides.

    Args:
        x: (..., h, w), floating point.
        size: (H, W).
        mode: one of MIL's sampling modes.

    Returns:
        (..., H, W).
    """
    align = mode == "STRICT_ALIGN_CORNERS" or (mode == "ALIGN_CORNERS" and 1 not in size)
    if align or mode == "UNALIGN_CORNERS":
        planes = x if x.ndim == 4 else x.reshape(1, -1, *x.shape[-2:])
        result = functional.interpolate(planes, size, mode="bilinear", align_corners=align)
        return result.reshape(*x.shape[:-2], *size) if x.ndim != 4 else result
    for axis, side in zip((-2, -1), size, strict=True):
        x = _linear_axis(x, axis, grid_points(x.shape[axis], side, mode))
    return x


def grid_points(n: int, m: int, mode: str) -> np.ndarray[tuple[int], np.dtype[np.float64]]:
    """Where `m` outputs are read among `n` samples: (m,) float64 in [0, n - 1]."""
    i = np.arange(m, dtype=np.float64)
    if mode in ("STRICT_ALIGN_CORNERS", "ALIGN_CORNERS"):
        alone = (n - 1) / 2 if mode == "ALIGN_CORNERS" else 0.0
        points = i * (n - 1) / (m - 1) if m > 1 else np.full(1, alone)
    elif mode == "UNALIGN_CORNERS":
        points = (i + 0.5) * n / m - 0.5
    elif mode == "DEFAULT":
        points = i * n / m
    else:
        points = (i + 0.5) * max(1, n - 1) / m
    return np.clip(points, 0, n - 1)


def _linear_axis(x: Tensor, axis: int, points: np.ndarray[tuple[int], np.dtype[np.float64]]) -> Tensor:
    low = torch.from_numpy(np.floor(points)).long()
    high = (low + 1).clamp(max=x.shape[axis] - 1)
    weight = (torch.from_numpy(points) - low).to(x.dtype).reshape(-1, *[1] * (-1 - axis))
    return torch.lerp(x.index_select(axis, low), x.index_select(axis, high), weight)


def _nearest(x: Tensor, size: tuple[int, int], mode: str) -> Tensor:
    for axis, side in zip((-2, -1), size, strict=True):
        n = x.shape[axis]
        if mode == "DEFAULT":
            index = torch.arange(side) * n // side
        elif mode == "OFFSET_CORNERS":
            raise ValueError("its sampling mode OFFSET_CORNERS has no nearest neighbour")
        else:
            # Halves go up, as in TensorFlow's resizers, which these modes come from.
            index = torch.from_numpy(np.floor(grid_points(n, side, mode) + 0.5)).long().clamp(max=n - 1)
        if side != n:
            x = x.index_select(axis, index)
    return x


def _scaled(call: Call) -> tuple[int, int]:
    """The size by the factors, which are fp32: 10 * 1.7 is 17 in them."""
    x = call.tensor("x")
    factors = [call.number("scale_factor_height", 1.0), call.number("scale_factor_width", 1.0)]
    if not all(0 < factor <= 1 << 16 for factor in factors):
        raise ValueError(f"it scales by {factors}")
    rank_of(x, 3, 5)
    height, width = (
        int(np.floor(np.float32(factor) * np.float32(side))) for factor, side in zip(factors, x.shape[-2:], strict=True)
    )
    _expect_size(call, x, (height, width))
    return height, width


def _target(call: Call) -> tuple[int, int]:
    size = call.integer("target_size_height", 1, low=1), call.integer("target_size_width", 1, low=1)
    _expect_size(call, call.tensor("x"), size)
    return size


def _expect_size(call: Call, x: Tensor, size: tuple[int, int]) -> None:
    rank_of(x, 3, 5)
    call.expect((*x.shape[:-2], *size))


RESIZERS: dict[str, Kernel] = {
    "resize": resize,
    "resize_bilinear": resize_bilinear,
    "resize_nearest_neighbor": resize_nearest_neighbor,
    "upsample_bilinear": upsample_bilinear,
    "upsample_nearest_neighbor": upsample_nearest_neighbor,
}
