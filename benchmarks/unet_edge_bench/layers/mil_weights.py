"""How a package stores a layer's weights, and how far that may have moved each of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unet_edge_export.mil import Function, Operation
from unet_edge_export.mil.values import Constant

from .layer import fp16_step

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Stored", "stored_form"]

_FP16_ROUNDINGS = 3  # of the weight before its compression, of its scale or palette value, and of their product


@dataclass(frozen=True)
class Stored:
    """Weights out of a package.

    Attributes:
        values: float32, as the program computes with them.
        step: how far storage may have moved each; for a pruned one up to the smallest kept; None for plain fp32.
        text: the form of compression, or empty.
        palette: whether each is one of a few values.
    """

    values: Tensor
    step: Tensor | None = None
    text: str = ""
    palette: bool = False


def stored_form(weight: str | Constant, function: Function, constants: Mapping[str, Any]) -> Stored:
    """Read the weights that a convolution takes.

    Args:
        weight: the value, or its name.
        function: what it stands in.
        constants: all constants of the function, expanded.
    """
    array: NDArray[Any] = weight.value() if isinstance(weight, Constant) else constants[weight]
    values = torch.from_numpy(array.astype(np.float32))
    step = fp16_step(values) if array.dtype == np.float16 else None
    maker = next((each for each in function.operations if each.name == weight), None)
    if maker is None or not maker.type.startswith("constexpr"):
        return Stored(values, step)
    rounded = torch.zeros_like(values) if step is None else _FP16_ROUNDINGS * step
    if "lut" in maker.type:
        return Stored(values, rounded, f"a palette of {len(torch.unique(values))} values", palette=True)
    if "sparse" in maker.type:
        zero = values == 0
        # The smallest ones are pruned.
        kept = values[~zero].abs().min() if not bool(zero.all()) else torch.tensor(torch.inf)
        return Stored(
            values, torch.where(zero, kept, rounded) + rounded, f"{zero.float().mean():.0%} of the weights are zero"
        )
    scale = _given(maker, "scale", constants)
    if scale is None:
        return Stored(values, step)
    # A number is rounded to the nearest multiple of its scale; it was larger before by half a multiple at most.
    half = _spread(scale, values, maker, constants) / 2
    if step is not None:
        rounded = _FP16_ROUNDINGS * fp16_step(values.abs() + half)
    return Stored(values, rounded + half, _bits(maker, constants))


def _spread(scale: NDArray[Any], values: Tensor, maker: Operation, constants: Mapping[str, Any]) -> Tensor:
    """The scale of each weight: one for all, one an output channel, or one a block."""
    scales = torch.from_numpy(scale.astype(np.float32)).abs()
    if scales.ndim == values.ndim:
        for axis, side in enumerate(values.shape):
            scales = scales.repeat_interleave(side // scales.shape[axis], dim=axis)
        return scales
    axis = int(_given(maker, "axis", constants) or 0)
    shape = [1] * values.ndim
    if scales.numel() > 1:
        shape[axis] = scales.numel()
    return scales.reshape(shape).expand(values.shape)


def _bits(maker: Operation, constants: Mapping[str, Any]) -> str:
    for name in ("quantized_data", "data"):
        for value in (maker.attributes.get(name), *maker.inputs.get(name, ())):
            if isinstance(value, Constant):
                return f"weights of type {value.type.dtype}"
    return "quantised weights"


def _given(maker: Operation, name: str, constants: Mapping[str, Any]) -> Any:
    """A parameter: an attribute in iOS 16's forms, an input in iOS 18's."""
    if name in maker.attributes:
        return maker.attributes[name].value()
    bound = maker.inputs.get(name, ())
    if not bound:
        return None
    return bound[0].value() if isinstance(bound[0], Constant) else constants.get(bound[0])
