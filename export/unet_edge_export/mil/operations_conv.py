"""Convolutions, pooling, and what belongs to them."""

from __future__ import annotations

from torch import Tensor, ones_like
from torch.nn import functional

from .call import Call, Kernel, rank_of

__all__ = ["CONVOLUTIONS"]

Pairs = list[tuple[int, int]]
_PADDING = ("valid", "same", "same_lower", "custom")


def conv(call: Call) -> Tensor:
    """Convolution in 1 to 3 dimensions: weight (C_out, C_in / groups, *K)."""
    x, weight = call.tensor("x"), call.tensor("weight")
    spatial = rank_of(x, 3, 5) - 2
    strides, dilations = _positive(call, "strides", spatial), _positive(call, "dilations", spatial)
    window = [(side - 1) * step + 1 for side, step in zip(weight.shape[2:], dilations, strict=True)]
    pads = _pads(call, x, window, strides)
    padded = [side + low + high for side, (low, high) in zip(x.shape[2:], pads, strict=True)]
    call.scratch((*x.shape[:2], *padded), x)
    out = [(side - size) // step + 1 for side, size, step in zip(padded, window, strides, strict=True)]
    call.expect((x.shape[0], weight.shape[0], *out))
    x, symmetric = _apply_pads(x, pads)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[spatial - 1]
    groups = call.integer("groups", 1, low=1)
    result: Tensor = function(x, weight, call.optional("bias"), strides, symmetric, dilations, groups)
    return result


def conv_transpose(call: Call) -> Tensor:
    """Transposed convolution in 1 to 3 dimensions: weight (C_in, C_out / groups, *K).

    The full result is cropped by `pad`; `output_shape` may ask for more than that at the end, where only the bias is.
    """
    x, weight, bias = call.tensor("x"), call.tensor("weight"), call.optional("bias")
    spatial = rank_of(x, 3, 5) - 2
    strides, dilations = _positive(call, "strides", spatial), _positive(call, "dilations", spatial)
    groups = call.integer("groups", 1, low=1)
    sides = zip(x.shape[2:], weight.shape[2:], strides, dilations, strict=True)
    full = [(side - 1) * step + (size - 1) * dilation + 1 for side, size, step, dilation in sides]
    lows, out = _crop(call, x, full, strides)
    call.expect((x.shape[0], weight.shape[1] * groups, *out))
    call.scratch((x.shape[0], weight.shape[1] * groups, *full), x)
    function = (functional.conv_transpose1d, functional.conv_transpose2d, functional.conv_transpose3d)[spatial - 1]
    exact = out == full and not any(lows)
    result: Tensor = function(x, weight, bias if exact else None, strides, 0, 0, groups, dilations)
    if exact:
        return result
    missing = [max(0, low + size - whole) for low, size, whole in zip(lows, out, full, strict=True)]
    result = functional.pad(result, [side for extra in reversed(missing) for side in (0, extra)])
    for axis, (low, size) in enumerate(zip(lows, out, strict=True), start=2):
        result = result.narrow(axis, low, size)
    return result if bias is None else result + bias.reshape(-1, *[1] * spatial)


def max_pool(call: Call) -> Tensor:
    """Maximum over windows; padding never wins."""
    x, kernel, strides, pads, ceil = _pooling(call)
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[x.ndim - 3]
    symmetric = _symmetric(pads, kernel)
    if symmetric is None:
        x, symmetric = _apply_pads(x, pads, -float("inf"), always=True)
    result: Tensor = function(x, kernel, strides, symmetric, 1, ceil)
    return result


def avg_pool(call: Call) -> Tensor:
    """Mean over windows, with the padding's zeros or without."""
    x, kernel, strides, pads, ceil = _pooling(call)
    exclude = call.flag("exclude_padding_from_average")
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[x.ndim - 3]
    symmetric = _symmetric(pads, kernel)
    if symmetric is not None:
        result: Tensor = function(x, kernel, strides, symmetric, ceil, not exclude)
        return result
    padded, none = _apply_pads(x, pads, always=True)
    result = function(padded, kernel, strides, none, ceil)
    if not exclude:
        return result
    return result / function(_apply_pads(ones_like(x), pads, always=True)[0], kernel, strides, none, ceil)


def batch_norm(call: Call) -> Tensor:
    """(x - mean) / sqrt(variance + epsilon) * gamma + beta, a channel each."""
    x = call.tensor("x")
    call.expect(x.shape)
    epsilon = call.number("epsilon", 1e-5)
    mean, variance = call.tensor("mean"), call.tensor("variance")
    return functional.batch_norm(x, mean, variance, call.optional("gamma"), call.optional("beta"), eps=epsilon)


def linear(call: Call) -> Tensor:
    """x @ weight.T + bias, weight (C_out, C_in)."""
    x, weight = call.tensor("x"), call.tensor("weight")
    call.expect((*x.shape[:-1], weight.shape[0]))
    return functional.linear(x, weight, call.optional("bias"))


def _positive(call: Call, name: str, count: int) -> list[int]:
    return call.integers(name, [1] * count, low=1, count=count)


def _pads(call: Call, x: Tensor, window: list[int], strides: list[int]) -> Pairs:
    """(before, after) of each spatial side."""
    kind = call.text("pad_type", _PADDING, "valid")
    if kind == "custom":
        flat = call.integers("pad", [0] * 2 * len(window), low=0, count=2 * len(window))
        return list(zip(flat[::2], flat[1::2], strict=True))
    if kind == "valid":
        return [(0, 0)] * len(window)
    sides = zip(x.shape[2:], window, strides, strict=True)
    totals = [max(0, (-(-side // step) - 1) * step + size - side) for side, size, step in sides]
    if kind == "same":
        return [(total // 2, total - total // 2) for total in totals]
    return [(total - total // 2, total // 2) for total in totals]


def _apply_pads(x: Tensor, pads: Pairs, value: float = 0.0, always: bool = False) -> tuple[Tensor, list[int]]:
    """Leave symmetric padding to the kernel that follows; apply any other (or all) here."""
    if not always and all(low == high for low, high in pads):
        return x, [low for low, _ in pads]
    if any(low or high for low, high in pads):
        x = functional.pad(x, [side for pair in reversed(pads) for side in pair], value=value)
    return x, [0] * len(pads)


def _symmetric(pads: Pairs, kernel: list[int]) -> list[int] | None:
    """The padding as torch's pooling takes it, or None where it does not."""
    fits = all(low == high and low <= size // 2 for (low, high), size in zip(pads, kernel, strict=True))
    return [low for low, _ in pads] if fits else None


def _pooling(call: Call) -> tuple[Tensor, list[int], list[int], Pairs, bool]:
    x = call.tensor("x")
    spatial = rank_of(x, 3, 5) - 2
    kernel, strides = call.integers("kernel_sizes", low=1, count=spatial), _positive(call, "strides", spatial)
    pads, ceil = _pads(call, x, kernel, strides), call.flag("ceil_mode")
    padded = [side + low + high for side, (low, high) in zip(x.shape[2:], pads, strict=True)]
    call.scratch((*x.shape[:2], *padded), x)
    if ceil and _symmetric(pads, kernel) is None:
        raise ValueError("it rounds up with a padding that PyTorch does not have")
    out = []
    for side, size, step, (low, _) in zip(padded, kernel, strides, pads, strict=True):
        count = (side - size + (step - 1 if ceil else 0)) // step + 1
        # With rounding up, a window that starts in the padding at the end is left out.
        out.append(count - 1 if ceil and (count - 1) * step >= side - low else count)
    call.expect((*x.shape[:2], *out))
    return x, kernel, strides, pads, ceil


def _crop(call: Call, x: Tensor, full: list[int], strides: list[int]) -> tuple[list[int], list[int]]:
    """Where the result of a transposed convolution starts in the full one, and its size."""
    kind = call.text("pad_type", ("valid", "same", "custom"), "valid")
    lows, highs = [0] * len(full), [0] * len(full)
    if kind == "custom":
        flat = call.integers("pad", [0] * 2 * len(full), low=0, count=2 * len(full))
        lows, highs = flat[::2], flat[1::2]
    elif kind == "same":
        totals = [whole - side * step for whole, side, step in zip(full, x.shape[2:], strides, strict=True)]
        lows = [max(0, total) // 2 for total in totals]
        highs = [total - low for total, low in zip(totals, lows, strict=True)]
    if call.has("output_shape"):
        return lows, call.integers("output_shape", low=1, count=len(full) + 2)[2:]
    return lows, [whole - low - high for whole, low, high in zip(full, lows, highs, strict=True)]


CONVOLUTIONS: dict[str, Kernel] = {
    "avg_pool": avg_pool,
    "batch_norm": batch_norm,
    "conv": conv,
    "conv_transpose": conv_transpose,
    "linear": linear,
    "max_pool": max_pool,
}
