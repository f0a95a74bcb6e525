"""A layer's own error: what it adds to that of the layers before it, and how much of that is rounding.

The reference's operation is computed in fp32 on the candidate's own inputs and compared with what the candidate made
of them. What rounding explains follows the probabilistic analysis of Higham and Mary (SIAM J. Sci. Comput. 41, 2019):
errors of n roundings add like sqrt(n). So a sum of n products w x, whose weights were moved by up to s and whose inputs
by up to u |x|, is off by about sqrt(sum (s x)^2 + (u w x)^2); the order of summation adds u32 sqrt(n sum (w x)^2).
"""

from __future__ import annotations

import dataclasses
import math
from dataclasses import dataclass

import torch
from torch import Tensor

from .layer import SMALLEST_FP16, UNIT, Layer, compute, convolve

__all__ = ["MARGIN", "REFOLDED", "Judged", "judge", "moved_weights"]

MARGIN = 6.0
"""How many times the expected rounding error passes for rounding; beyond it is no matter of chance."""

REFOLDED = 2.0**-20
"""Two machines that fold batch norm into fp32 weights may differ by a few roundings (16 units)."""

_FEW = 3.0  # roundings of a mean of four
_GRID = 8.0  # roundings in the computation of a point between samples


@dataclass(frozen=True)
class Judged:
    """A layer of the candidate under the reference's operation.

    Attributes:
        inputs: the candidate's values that the reference's layer takes, float32.
        expected: what the reference's operation makes of them.
        got: what the candidate made.
        error: largest difference; infinite where only one of them is finite.
        rounding: the error as a multiple of what rounding explains (of `MARGIN` times what is expected of it).
    """

    inputs: list[Tensor]
    expected: Tensor
    got: Tensor
    error: float
    rounding: float


def judge(reference: Layer, candidate: Layer, inputs: list[Tensor], got: Tensor) -> Judged:
    """Compare one layer.

    Args:
        reference: what should be computed; compressed weights are taken as they are, on either side, because
            `moved_weights` judges them.
        candidate: how it is stored and rounded.
        inputs: the candidate's values that the reference's layer takes, in the reference's order.
        got: the candidate's result.

    Raises:
        ValueError: the reference's operation cannot be computed, or gives another shape.
    """
    layer = with_own_compression(reference, candidate)
    seen = [_limited(x, candidate, index) for index, x in enumerate(inputs)]
    expected = compute(layer, seen)
    if expected.shape != got.shape:
        raise ValueError(f"it gives {tuple(got.shape)} instead of {tuple(expected.shape)}")
    difference = (got - expected).abs()
    same = (got == expected) | (got.isnan() & expected.isnan())
    difference = torch.where(same, 0.0, difference.nan_to_num(nan=math.inf, posinf=math.inf))
    share = difference / allowance(layer, reference, candidate, seen, expected)
    return Judged(
        seen, expected, got, float(difference.max()), float(share.nan_to_num(nan=math.inf, posinf=math.inf).max())
    )


def with_own_compression(reference: Layer, candidate: Layer) -> Layer:
    """The reference's layer, with the candidate's weights where either side's are compressed."""
    if not (reference.compression or candidate.compression):
        return reference
    return dataclasses.replace(reference, weight=candidate.weight)


def allowance(layer: Layer, reference: Layer, candidate: Layer, inputs: list[Tensor], expected: Tensor) -> Tensor:
    """What rounding explains of a layer's error, in the shape of its result; never 0."""
    unit = UNIT[candidate.narrowest]
    smallest = SMALLEST_FP16 if candidate.narrowest == "fp16" else torch.finfo(torch.float32).tiny
    spacing = max((way.quantiser.step for way in candidate.ways if way.quantiser), default=0.0)
    if layer.kind in ("conv", "upconv"):
        noise = MARGIN * _noise(layer, reference, candidate, inputs[0], spacing)
    elif layer.kind == "upsample":
        peak = inputs[0].abs().amax(dim=(2, 3), keepdim=True)
        side = max(expected.shape[-2:])
        noise = (unit + _GRID * side * UNIT["fp32"]) * peak + spacing
    else:
        noise = _FEW * unit * expected.abs() + spacing
    return (noise + unit * expected.abs() + smallest).nan_to_num(nan=math.inf, posinf=math.inf)


def moved_weights(reference: Layer, candidate: Layer) -> tuple[Tensor | None, Tensor | None]:
    """Which weights and biases differ by more than their storage explains: masks in their shapes, or None for none."""
    return _moved_weight(reference, candidate), _moved_bias(reference, candidate)


def _moved_weight(reference: Layer, candidate: Layer) -> Tensor | None:
    theirs, its = reference.weight, candidate.weight
    if theirs is None or its is None or theirs.shape != its.shape:
        return None
    allowed = REFOLDED * theirs.abs() + UNIT["fp32"] * theirs.abs().max() + _steps(reference, candidate)
    moved = ~((its - theirs).abs() <= allowed + _palette_error(theirs, its, candidate.palette))
    moved &= ~((theirs - its).abs() <= allowed + _palette_error(its, theirs, reference.palette))
    moved |= ~its.isfinite()
    return moved if moved.any() else None


def _moved_bias(reference: Layer, candidate: Layer) -> Tensor | None:
    if reference.bias is None and candidate.bias is None:
        return None
    some = reference.bias if reference.bias is not None else candidate.bias
    assert some is not None
    theirs, its = (torch.zeros_like(some) if each.bias is None else each.bias for each in (reference, candidate))
    if theirs.shape != its.shape:
        return torch.ones_like(its, dtype=torch.bool)
    allowed = REFOLDED * (theirs.abs() + theirs.abs().max())
    for step in (reference.bias_step, candidate.bias_step):
        allowed = allowed if step is None else allowed + step
    moved = ~((its - theirs).abs() <= allowed)
    return moved if moved.any() else None


def _steps(reference: Layer, candidate: Layer) -> Tensor | float:
    return sum((each.weight_step for each in (reference, candidate) if each.weight_step is not None), 0.0)


def _palette_error(exact: Tensor, stored: Tensor, palette: bool) -> Tensor | float:
    """How far the nearest value of a palette is from each exact weight."""
    if not palette:
        return 0.0
    values = torch.unique(stored)
    above = torch.searchsorted(values, exact.contiguous()).clamp(max=len(values) - 1)
    below = (above - 1).clamp(min=0)
    return torch.minimum((values[above] - exact).abs(), (values[below] - exact).abs())


def _limited(x: Tensor, candidate: Layer, index: int) -> Tensor:
    """An input within the range of 8-bit activations, where the candidate rounds it to them."""
    quantiser = candidate.ways[index].quantiser if index < len(candidate.ways) else None
    return x if quantiser is None else x.clamp(quantiser.low, quantiser.high)


def _noise(layer: Layer, reference: Layer, candidate: Layer, x: Tensor, spacing: float) -> Tensor:
    """The expected rounding error of a convolution (see above)."""
    weight = layer.weight
    assert weight is not None
    compressed = bool(reference.compression or candidate.compression)
    moved = torch.zeros_like(weight) if compressed else _steps(reference, candidate) + torch.zeros_like(weight)
    inputs = UNIT["fp16"] if candidate.narrowest == "fp16" else REFOLDED
    terms = weight[0].numel() if layer.kind == "conv" else weight.shape[0]
    variance = moved**2 + ((inputs**2 + terms * UNIT["fp32"] ** 2) * weight**2)
    total = convolve(layer, x**2, variance, None)
    if spacing:
        # A number rounded to multiples of s is off by s / sqrt(12) on average.
        total = total + convolve(layer, torch.full_like(x, spacing**2 / 12), weight**2, None)
    return total.clamp(min=0).sqrt() + _bias_noise(reference, candidate, layer)


def _bias_noise(reference: Layer, candidate: Layer, layer: Layer) -> Tensor | float:
    if layer.bias is None:
        return 0.0
    allowed = REFOLDED * layer.bias.abs()
    for step in (reference.bias_step, candidate.bias_step):
        allowed = allowed if step is None else allowed + step
    return allowed.reshape(1, -1, 1, 1)
