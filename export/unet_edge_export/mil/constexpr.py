"""Compressed weights: what each `constexpr_*` operation expands to.

iOS 16 has one form each of affine, palette and sparse weights, with packed bits in uint8 arrays; iOS 18 has
sub-byte types, blocks, grouped and vector palettes, and sparse-to-sparse steps. Definitions: coremltools' MIL
reference, `iOS16.constexpr_ops` and `iOS18.compression`. Arithmetic is that of coremltools' own loader, so results
are equal bit for bit.

Sizes come from files of unknown origin: the expanded shape is compared with the declared one before it is made.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from .weights import ELEMENTS, unpack

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CONSTEXPR", "expand"]

Shape = tuple[int, ...]


def expand(operation: str, values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    """Expand one compressed weight.

    Args:
        operation: its type, such as "constexpr_lut_to_dense".
        values: parameter -> array or text.
        declared: shapes of its results, as the program states them.

    Returns:
        The results: one, or mask and non-zero values for sparse-to-sparse operations.

    Raises:
        KeyError: the operation is unknown, or lacks a parameter.
        ValueError: its parameters do not fit each other or the declared shapes.
    """
    # iOS 16's palettes and sparse weights state the shape themselves; iOS 18's follow it from their indices or mask.
    form = f"{operation}, iOS 16" if "shape" in values else operation
    results = _FORMS[form](values, declared)
    _require([result.shape for result in results] == declared, "it does not have the declared shape")
    return results


def _affine(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    """(data - zero point) * scale, each of both a scalar or a vector along an axis."""
    data, scale = values["quantized_data"], values["scale"]
    axis = int(values["axis"])
    shifted = data.astype(np.float32) - _along(values["zero_point"], data.ndim, axis).astype(np.float32)
    return [(shifted * _along(scale, data.ndim, axis).astype(np.float32)).astype(scale.dtype)]


def _cast(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    return [values["source_val"].astype(ELEMENTS[values["output_dtype"]].type)]


def _packed_palette(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    """Indices of log2(palette) bits, packed into bytes."""
    palette, count = values["lut"], math.prod(declared[0])
    _require(values["shape"].tolist() == list(declared[0]), "it does not have the declared shape")
    _require(palette.size in (2, 4, 8, 16, 64, 256), f"its palette has {palette.size} entries")
    return [palette.reshape(-1)[_unpacked(values["indices"], palette.size.bit_length() - 1, count)].reshape(*declared)]


def _packed_sparse(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    _require(values["shape"].tolist() == list(declared[0]), "it does not have the declared shape")
    mask = _unpacked(values["mask"], 1, math.prod(declared[0])).reshape(*declared)
    return [_dense(values["nonzero_data"], mask)]


def _blockwise(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    return [_shift_scale(values["data"], values["scale"], values.get("offset"))]


def _palette(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    return [_look_up(values["indices"], values["lut"], values.get("vector_axis"), declared[0])]


def _sparse(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    return [_dense(values["nonzero_data"], values["mask"])]


def _palette_sparse(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    mask, axis = values["indices_mask"], values.get("vector_axis")
    dense = _look_up(_dense(values["indices_nonzero_data"], mask), values["lut"], axis, declared[0])
    if axis is not None:
        mask = np.repeat(mask, values["lut"].shape[-1], int(axis))
    return [mask, dense[mask != 0]]


def _blockwise_sparse(values: dict[str, Any], declared: list[Shape]) -> list[NDArray[Any]]:
    mask = values["data_mask"]
    dense = _shift_scale(_dense(values["nonzero_data"], mask), values["scale"], values.get("offset"))
    return [mask, dense[mask != 0]]


def _shift_scale(data: NDArray[Any], scale: NDArray[Any], offset: NDArray[Any] | None) -> NDArray[Any]:
    """(data - offset) * scale; each side of offset and scale divides the data's: one value a block."""
    result = data.astype(scale.dtype)
    if offset is not None:
        result = result - _blocks(offset, data.shape).astype(scale.dtype)
    return _blocks(scale, data.shape) * result


def _look_up(indices: NDArray[Any], palettes: NDArray[Any], axis: Any, declared: Shape) -> NDArray[Any]:
    """Palettes have the indices' rank and two sides more: entries, and the length of an entry (a vector)."""
    _require(palettes.ndim == indices.ndim + 2, "its palettes do not have the indices' rank and two sides more")
    *groups, entries, length = palettes.shape
    shape = list(indices.shape)
    along = int(axis) % indices.ndim if length > 1 else 0
    shape[along] *= length
    _require(tuple(shape) == declared, "it does not have the declared shape")
    _require(not indices.size or int(indices.max()) < entries, "an index lies outside its palette")
    rows = indices
    if math.prod(groups) > 1:
        rows = _blocks(np.arange(math.prod(groups), dtype=np.int64).reshape(groups), indices.shape) * entries + indices
    values = palettes.reshape(-1, length)[rows]
    # (.., side, .., length) to (.., side * length, ..): the entries of a vector stand side by side.
    return np.moveaxis(values, -1, along + 1).reshape(shape)


def _dense(values: NDArray[Any], mask: NDArray[Any]) -> NDArray[Any]:
    chosen = mask != 0
    _require(values.shape == (int(chosen.sum()),), "its mask does not select as many values as there are")
    result = np.zeros(mask.shape, values.dtype)
    result[chosen] = values
    return result


def _blocks(values: NDArray[Any], shape: Shape) -> NDArray[Any]:
    """Repeat each value over its block."""
    fits = values.ndim == len(shape) and all(
        side and not whole % side for side, whole in zip(values.shape, shape, strict=True)
    )
    _require(fits, f"blocks of {values.shape} do not divide {shape}")
    for axis, (side, whole) in enumerate(zip(values.shape, shape, strict=True)):
        # One block is left to broadcasting.
        if side not in (1, whole):
            values = np.repeat(values, whole // side, axis)
    return values


def _along(values: NDArray[Any], rank: int, axis: int) -> NDArray[Any]:
    _require(values.ndim <= 1 and -rank <= axis < rank, "scale and zero point are neither scalars nor vectors")
    return values.reshape([-1 if side == axis % rank else 1 for side in range(rank)]) if values.ndim else values


def _unpacked(packed: NDArray[Any], bits: int, count: int) -> NDArray[Any]:
    _require(packed.dtype == np.uint8 and packed.size == -(-count * bits // 8), "it has too few or too many bits")
    return unpack(packed.reshape(-1), bits, count)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ValueError(message)


_FORMS: dict[str, Callable[[dict[str, Any], list[Shape]], list[NDArray[Any]]]] = {
    "constexpr_affine_dequantize": _affine,
    "constexpr_cast": _cast,
    "constexpr_lut_to_dense, iOS 16": _packed_palette,
    "constexpr_sparse_to_dense, iOS 16": _packed_sparse,
    "constexpr_blockwise_shift_scale": _blockwise,
    "constexpr_lut_to_dense": _palette,
    "constexpr_sparse_to_dense": _sparse,
    "constexpr_lut_to_sparse": _palette_sparse,
    "constexpr_sparse_blockwise_shift_scale": _blockwise_sparse,
}
CONSTEXPR = frozenset(form.partition(",")[0] for form in _FORMS)
"""Types of the operations that can be expanded."""
