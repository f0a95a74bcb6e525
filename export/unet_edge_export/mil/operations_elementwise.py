"""Activations, arithmetic, comparisons, reductions, casts and quantisation."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Kernel, broadcast

__all__ = ["ELEMENTWISE", "LIMITS"]

LIMITS = {
    "int8": (-128, 127),
    "uint8": (0, 255),
    "int16": (-(1 << 15), (1 << 15) - 1),
    "uint16": (0, (1 << 16) - 1),
    "int32": (-(1 << 31), (1 << 31) - 1),
    "uint32": (0, (1 << 32) - 1),
}
"""Least and largest value of the integer types that a cast or a quantisation may have as its result."""


def unary(function: Callable[[Tensor], Tensor]) -> Kernel:
    """A kernel of one tensor."""
    return lambda call: function(call.tensor("x"))


def binary(function: Callable[[Tensor, Tensor], Tensor]) -> Kernel:
    """A kernel of two tensors that are broadcast."""

    def kernel(call: Call) -> Tensor:
        x, y = call.tensor("x"), call.tensor("y")
        call.expect(broadcast(x, y))
        return function(x, y)

    return kernel


def with_epsilon(function: Callable[[Tensor], Tensor], epsilon: float) -> Kernel:
    """A kernel of x + epsilon."""
    return lambda call: function(call.tensor("x") + call.number("epsilon", epsilon))


def real_div(call: Call) -> Tensor:
    """x / y; of whole numbers, without the remainder."""
    x, y = call.tensor("x"), call.tensor("y")
    call.expect(broadcast(x, y))
    return torch.true_divide(x, y) if x.is_floating_point() else torch.div(x, y, rounding_mode="trunc")


def leaky_relu(call: Call) -> Tensor:
    """x, or alpha x where it is negative."""
    return functional.leaky_relu(call.tensor("x"), call.number("alpha", 0.01))


def clip(call: Call) -> Tensor:
    """Between alpha and beta."""
    return torch.clamp(call.tensor("x"), call.number("alpha"), call.number("beta"))


def softmax(call: Call) -> Tensor:
    """Exponentials that sum to 1 along an axis."""
    x = call.tensor("x")
    return torch.softmax(x, call.axis("axis", x.ndim, -1))


def select(call: Call) -> Tensor:
    """a where the condition holds, else b."""
    condition, a, b = call.tensor("cond"), call.tensor("a"), call.tensor("b")
    call.expect(broadcast(condition, a, b))
    return torch.where(condition.bool(), a, b)


def cast(call: Call) -> Tensor:
    """To another type: towards zero, and to the nearest value that it has, for whole numbers."""
    x, dtype = call.tensor("x"), call.output.dtype
    if call.text("dtype", (dtype,)) in LIMITS:
        return clamp_to(torch.trunc(x) if x.is_floating_point() else x, dtype)
    return x != 0 if dtype == "bool" else x


def quantize(call: Call) -> Tensor:
    """clip(round(x / scale) + zero point), halves to even."""
    x, dtype = call.tensor("input"), call.text("output_dtype", ("int8", "uint8"))
    scale, zero = _scale_and_zero(call, x)
    call.expect(x.shape)
    return clamp_to(torch.round(x / scale) + zero, dtype)


def dequantize(call: Call) -> Tensor:
    """(x - zero point) * scale."""
    x = call.tensor("input")
    scale, zero = _scale_and_zero(call, x)
    call.expect(x.shape)
    return (x.float() - zero) * scale


def clamp_to(x: Tensor, dtype: str) -> Tensor:
    """Saturate whole numbers to a type's range; in float64 where float32 cannot hold its limits."""
    low, high = LIMITS[dtype]
    if x.is_floating_point() and high > 1 << 24:
        x = x.double()
    return torch.clamp(x, low, high)


def reduction(function: Callable[..., Tensor]) -> Kernel:
    """A kernel that sums up axes, all of them by default."""

    def kernel(call: Call) -> Tensor:
        x = call.tensor("x")
        axes = call.integers("axes", list(range(x.ndim)))
        return function(x, dim=[axis % x.ndim for axis in axes], keepdim=call.flag("keep_dims"))

    return kernel


def arg_reduction(function: Callable[..., Tensor]) -> Kernel:
    """A kernel that finds the first extreme value's place along an axis."""

    def kernel(call: Call) -> Tensor:
        x = call.tensor("x")
        return function(x, dim=call.axis("axis", x.ndim, -1), keepdim=call.flag("keep_dims"))

    return kernel


def _scale_and_zero(call: Call, x: Tensor) -> tuple[Tensor, Tensor]:
    """Scale and zero point, each a scalar or a vector along an axis, ready to broadcast with `x`."""
    zero = call.optional("zero_point")
    scale = call.tensor("scale")
    axis = call.axis("axis", x.ndim, 0) if scale.ndim else 0
    if scale.ndim > 1 or (zero is not None and zero.shape != scale.shape):
        raise ValueError("its scale and zero point are neither scalars nor vectors of one length")
    shape = [-1 if side == axis else 1 for side in range(x.ndim)] if scale.ndim else []
    return scale.reshape(shape), torch.zeros(()) if zero is None else zero.float().reshape(shape)


ELEMENTWISE: dict[str, Kernel] = {
    "abs": unary(torch.abs),
    "add": binary(torch.add),
    "cast": cast,
    "ceil": unary(torch.ceil),
    "clip": clip,
    "dequantize": dequantize,
    "equal": binary(torch.eq),
    "exp": unary(torch.exp),
    "floor": unary(torch.floor),
    "greater": binary(torch.gt),
    "greater_equal": binary(torch.ge),
    "identity": unary(lambda x: x),
    "inverse": with_epsilon(torch.reciprocal, 1e-4),
    "leaky_relu": leaky_relu,
    "less": binary(torch.lt),
    "less_equal": binary(torch.le),
    "log": with_epsilon(torch.log, 1e-45),
    "logical_and": binary(torch.logical_and),
    "logical_not": unary(torch.logical_not),
    "logical_or": binary(torch.logical_or),
    "maximum": binary(torch.maximum),
    "minimum": binary(torch.minimum),
    "mul": binary(torch.mul),
    "not_equal": binary(torch.ne),
    "quantize": quantize,
    "real_div": real_div,
    "reduce_argmax": arg_reduction(torch.argmax),
    "reduce_argmin": arg_reduction(torch.argmin),
    "reduce_max": reduction(torch.amax),
    "reduce_mean": reduction(torch.mean),
    "reduce_min": reduction(torch.amin),
    "reduce_sum": reduction(torch.sum),
    "relu": unary(torch.relu),
    "relu6": unary(functional.relu6),
    "round": unary(torch.round),
    "rsqrt": with_epsilon(torch.rsqrt, 1e-12),
    "select": select,
    "sigmoid": unary(torch.sigmoid),
    "silu": unary(functional.silu),
    "softmax": softmax,
    "sqrt": unary(torch.sqrt),
    "square": unary(torch.square),
    "sub": binary(torch.sub),
    "tanh": unary(torch.tanh),
}
