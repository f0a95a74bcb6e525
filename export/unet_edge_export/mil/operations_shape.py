"""Operations that move values about: concatenate, pad, slice, reshape."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from .call import Call, Kernel

__all__ = ["SHAPES"]


def concat(call: Call) -> Tensor:
    """Join along an axis; interleaved, one slice of each in turn."""
    values = call.tensors("values")
    axis = call.axis("axis", values[0].ndim)
    shape = list(values[0].shape)
    shape[axis] = sum(value.shape[axis] for value in values)
    call.expect(shape)
    if call.flag("interleave"):
        return torch.stack(values, axis + 1).reshape(shape)
    return torch.cat(values, axis)


def stack(call: Call) -> Tensor:
    """Join along a new axis."""
    values = call.tensors("values")
    axis = call.axis("axis", values[0].ndim + 1)
    shape = list(values[0].shape)
    shape.insert(axis, len(values))
    call.expect(shape)
    return torch.stack(values, axis)


def split(call: Call) -> list[Tensor]:
    """Cut along an axis, into equal parts or parts of given sizes."""
    x = call.tensor("x")
    axis = call.axis("axis", x.ndim)
    count = len(call.operation.outputs)
    sizes = call.integers("split_sizes", [x.shape[axis] // count] * count, low=0, count=count)
    return list(torch.split(x, sizes, axis))


def pad(call: Call) -> Tensor:
    """Fill up the last sides with a constant, by reflection, or with the border."""
    x, flat = call.tensor("x"), call.integers("pad", low=0)
    mode = call.text("mode", ("constant", "reflect", "replicate"), "constant")
    pairs = list(zip(flat[::2], flat[1::2], strict=True))
    first = x.ndim - len(pairs)
    if first < 0:
        raise ValueError(f"it pads {len(pairs)} sides of {x.ndim}")
    call.expect([*x.shape[:first], *(n + low + high for n, (low, high) in zip(x.shape[first:], pairs, strict=True))])
    if mode == "constant":
        reversed_pads = [side for pair in reversed(pairs) for side in pair]
        return functional.pad(x, reversed_pads, value=call.number("constant_val", 0.0))
    for axis, (low, high) in enumerate(pairs, start=first):
        side = x.shape[axis]
        if mode == "reflect" and max(low, high) >= side:
            raise ValueError(f"it reflects {max(low, high)} of {side} values")
        places = torch.arange(-low, side + high)
        # Behind the end, the reflection of i is 2 (n - 1) - i.
        places = places.abs() if mode == "reflect" else places.clamp(0, side - 1)
        x = x.index_select(axis, torch.where(places < side, places, 2 * (side - 1) - places))
    return x


def crop(call: Call) -> Tensor:
    """Without so many rows and columns at the start and at the end."""
    x = call.tensor("x")
    for axis, name in ((-2, "crop_height"), (-1, "crop_width")):
        low, high = call.integers(name, low=0, count=2)
        x = x.narrow(axis, low, x.shape[axis] - low - high)
    return x


def slice_by_index(call: Call) -> Tensor:
    """x[begin:end:stride]; masks stand for "from the start", "to the end" and "this one, without its side"."""
    x = call.tensor("x")
    begin, end = call.integers("begin", count=x.ndim), call.integers("end", count=x.ndim)
    strides = call.integers("stride", [1] * x.ndim, count=x.ndim)
    from_start, to_end = call.flags("begin_mask", x.ndim), call.flags("end_mask", x.ndim)
    squeeze = call.flags("squeeze_mask", x.ndim)
    for axis in range(x.ndim):
        low = None if from_start[axis] else begin[axis]
        if squeeze[axis]:
            index = range(x.shape[axis])[low or 0]
            chosen = range(index, index + 1)
        else:
            chosen = range(x.shape[axis])[low : None if to_end[axis] else end[axis] : strides[axis]]
        x = _take(x, axis, chosen)
    for axis in reversed(range(x.ndim)):
        if squeeze[axis]:
            x = x.squeeze(axis)
    return x


def slice_by_size(call: Call) -> Tensor:
    """x[begin : begin + size]; a size of -1 goes to the end."""
    x = call.tensor("x")
    begin, size = call.integers("begin", count=x.ndim), call.integers("size", low=-1, count=x.ndim)
    for axis in range(x.ndim):
        start = begin[axis] % max(1, x.shape[axis])
        x = x.narrow(axis, start, x.shape[axis] - start if size[axis] == -1 else size[axis])
    return x


def reshape(call: Call) -> Tensor:
    """Another shape in the same order; 0 keeps a side, -1 is what is left over."""
    x = call.tensor("x")
    wanted = call.integers("shape", low=-1)
    return x.reshape([x.shape[axis] if side == 0 and x.numel() else side for axis, side in enumerate(wanted)])


def transpose(call: Call) -> Tensor:
    """Sides in another order."""
    x = call.tensor("x")
    return x.permute(call.integers("perm", count=x.ndim))


def squeeze(call: Call) -> Tensor:
    """Without sides of 1: those named, or all."""
    x = call.tensor("x")
    axes = [axis % x.ndim for axis in call.integers("axes", [a for a, side in enumerate(x.shape) if side == 1])]
    if any(x.shape[axis] != 1 for axis in axes):
        raise ValueError(f"it removes the sides {axes} of {tuple(x.shape)}, which are not 1")
    return x.reshape([side for axis, side in enumerate(x.shape) if axis not in axes])


def expand_dims(call: Call) -> Tensor:
    """With sides of 1, at places counted in the result."""
    x = call.tensor("x")
    axes = call.integers("axes")
    rank = x.ndim + len(axes)
    for axis in sorted(axis % rank for axis in axes):
        x = x.unsqueeze(axis)
    return x


def tile(call: Call) -> Tensor:
    """Repeat each side."""
    x = call.tensor("x")
    counts = call.integers("reps", low=1, count=x.ndim)
    call.expect([side * count for side, count in zip(x.shape, counts, strict=True)])
    return x.repeat(counts)


def pixel_shuffle(call: Call) -> Tensor:
    """(N, C r r, H, W) to (N, C, H r, W r)."""
    return functional.pixel_shuffle(call.tensor("x"), call.integer("upscale_factor", low=1))


def pixel_unshuffle(call: Call) -> Tensor:
    """(N, C, H r, W r) to (N, C r r, H, W)."""
    return functional.pixel_unshuffle(call.tensor("x"), call.integer("downscale_factor", low=1))


def shape(call: Call) -> Tensor:
    """The sides, as a vector."""
    return torch.tensor(call.tensor("x").shape, dtype=torch.int32)


def _take(x: Tensor, axis: int, chosen: range) -> Tensor:
    if chosen.step == 1 or len(chosen) == 0:
        return x.narrow(axis, chosen.start if len(chosen) else 0, len(chosen))
    return x.index_select(axis, torch.tensor(list(chosen)))


SHAPES: dict[str, Kernel] = {
    "concat": concat,
    "crop": crop,
    "expand_dims": expand_dims,
    "pad": pad,
    "pixel_shuffle": pixel_shuffle,
    "pixel_unshuffle": pixel_unshuffle,
    "reshape": reshape,
    "shape": shape,
    "slice_by_index": slice_by_index,
    "slice_by_size": slice_by_size,
    "split": split,
    "squeeze": squeeze,
    "stack": stack,
    "tile": tile,
    "transpose": transpose,
}
