"""One layer as all formats are read into: its operation, weights, options, and how its inputs reach it."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional

from unet_edge_export.mil.resize import linear

__all__ = [
    "FP16_MAX",
    "INPUT",
    "SMALLEST_FP16",
    "UNIT",
    "Layer",
    "Quantiser",
    "Way",
    "compute",
    "convolve",
    "fp16_step",
]

INPUT = "input"
"""What the network's input is called where a layer's name is expected."""

UNIT = {"fp32": 2.0**-24, "fp16": 2.0**-11}
"""Unit roundoff: how far a number is rounded, at most, relative to itself (IEEE 754)."""

FP16_MAX = 65504.0
SMALLEST_FP16 = 2.0**-24
"""Below its normal numbers (2**-14) fp16 has this spacing."""


@dataclass(frozen=True)
class Quantiser:
    """8-bit activations: values are limited to [low, high] and rounded to multiples of `step`."""

    low: float
    high: float
    step: float


@dataclass(frozen=True)
class Way:
    """How a value reaches a layer.

    Attributes:
        layer: name of the layer that makes it, or `INPUT`.
        precision: the narrowest type on the way: fp32 or fp16.
        quantiser: what it is rounded to on the way, if anything.
        extra: operations on the way that the U-Net does not have.
    """

    layer: str
    precision: str = "fp32"
    quantiser: Quantiser | None = None
    extra: tuple[str, ...] = ()


@dataclass(frozen=True)
class Layer:
    """One operation of the network with everything that belongs to it.

    Attributes:
        name: of the layer.
        kind: conv, upconv, relu, pool, upsample, concat; or the format's own word for what is none of them.
        operation: the format's own word.
        ways: its inputs, in order.
        weight: (C_out, C_in / groups, kh, kw); (C_in, C_out / groups, kh, kw) of an upconv. float32.
        bias: (C_out,) float32.
        weight_step: of each weight, how far its storage may have moved it.
        bias_step: of each bias, likewise.
        compression: how the weights are stored, for people; empty where they are plain numbers.
        palette: whether each weight is one of a few values.
        options: what else the operation is given, in PyTorch's terms; `pads` are top, left, bottom, right.
        precision: of the result: fp32 or fp16.
    """

    name: str
    kind: str
    operation: str
    ways: tuple[Way, ...]
    weight: Tensor | None = None
    bias: Tensor | None = None
    weight_step: Tensor | None = None
    bias_step: Tensor | None = None
    compression: str = ""
    palette: bool = False
    options: dict[str, Any] = field(default_factory=dict)
    precision: str = "fp32"

    @property
    def narrowest(self) -> str:
        """The narrowest type that the layer's inputs or its result are rounded to."""
        return "fp16" if "fp16" in (self.precision, *(way.precision for way in self.ways)) else "fp32"


def fp16_step(values: Tensor) -> Tensor:
    """How far a number that is stored as fp16 may have been moved: half the spacing there."""
    return values.abs().clamp(min=2.0**-14) * UNIT["fp16"]


def compute(layer: Layer, inputs: list[Tensor]) -> Tensor:
    """What a layer makes of its inputs, in fp32.

    Args:
        layer: of one of the six kinds.
        inputs: (1, C, H, W) each, in the order of the layer's ways.

    Raises:
        ValueError: another kind, or inputs that do not fit it.
    """
    options = layer.options
    try:
        if layer.kind == "concat":
            return torch.cat(inputs, dim=options["axis"])
        (x,) = inputs
        if layer.kind == "relu":
            return functional.relu(x)
        if layer.kind in ("conv", "upconv"):
            assert layer.weight is not None
            return convolve(layer, x, layer.weight, layer.bias)
        if layer.kind == "pool":
            return _pool(x, options)
        if layer.kind == "upsample":
            return _resize(x, options)
    except RuntimeError as error:
        raise ValueError(str(error).partition("\n")[0]) from None
    raise ValueError(f"{layer.operation} is no operation of the U-Net")


def convolve(layer: Layer, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
    """The layer's convolution with other weights."""
    options = layer.options
    stride, dilation, groups = options["stride"], options["dilation"], options["groups"]
    top, left, bottom, right = options["pads"]
    if layer.kind == "conv":
        padded = functional.pad(x, (left, right, top, bottom)) if any(options["pads"]) else x
        return functional.conv2d(padded, weight, bias, stride, 0, dilation, groups)
    full = functional.conv_transpose2d(x, weight, bias, stride, 0, 0, groups, dilation)
    return full[..., top : full.shape[-2] - bottom, left : full.shape[-1] - right]


def _pool(x: Tensor, options: dict[str, Any]) -> Tensor:
    top, left, bottom, right = options["pads"]
    if options["how"] == "max":
        padded = functional.pad(x, (left, right, top, bottom), value=-float("inf"))
        return functional.max_pool2d(padded, options["kernel"], options["stride"])
    padded = functional.pad(x, (left, right, top, bottom))
    return functional.avg_pool2d(padded, options["kernel"], options["stride"])


def _resize(x: Tensor, options: dict[str, Any]) -> Tensor:
    """By MIL's sampling modes (`unet_edge_export.mil.resize`), or "nearest", or PyTorch's "bicubic"."""
    height, width = (int(side * factor) for side, factor in zip(x.shape[-2:], options["factor"], strict=True))
    if options["mode"] == "nearest":
        return functional.interpolate(x, (height, width), mode="nearest")
    if options["mode"] == "bicubic":
        return functional.interpolate(x, (height, width), mode="bicubic", align_corners=False)
    return linear(x, (height, width), options["mode"])
