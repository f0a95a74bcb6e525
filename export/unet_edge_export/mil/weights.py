"""Numbers as a package stores them: element types, sub-byte packing, and the weight file.

A weight file (MIL blob storage, version 2; coremltools' `StorageFormat.hpp`) is a 64-byte header (count uint32,
version uint32) and blobs. The program names a blob by the offset of its 64-byte record: sentinel uint32, type
uint32, size in bytes uint64, offset of the data uint64, unused bits uint64. All little-endian.

Nothing in the file is trusted: every offset and size is checked against the file before anything is read, and
what is read is checked against what the program declares.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.errors import ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["ELEMENTS", "Element", "WeightFile", "damaged", "decode", "stored_bytes", "unpack"]

_SENTINEL = 0xDEADBEEF
_RECORD = np.dtype([("sentinel", "<u4"), ("type", "<u4"), ("size", "<u8"), ("offset", "<u8"), ("unused_bits", "<u8")])
_HEADER_BYTES = 64


@dataclass(frozen=True)
class Element:
    """How one element type is stored.

    Attributes:
        bits: of one element in the file.
        type: numpy's, after unpacking.
        blob: its number in a weight file, or 0 where it cannot stand there.
        signed: whether a sub-byte type has a sign (two's complement).
    """

    bits: int
    type: np.dtype[Any]
    blob: int = 0
    signed: bool = False


ELEMENTS = {
    "bool": Element(8, np.dtype(np.bool_)),
    "fp16": Element(16, np.dtype("<f2"), 1),
    "fp32": Element(32, np.dtype("<f4"), 2),
    "fp64": Element(64, np.dtype("<f8")),
    "int8": Element(8, np.dtype(np.int8), 4),
    "int16": Element(16, np.dtype("<i2"), 6),
    "int32": Element(32, np.dtype("<i4"), 14),
    "int64": Element(64, np.dtype("<i8")),
    "uint8": Element(8, np.dtype(np.uint8), 3),
    "uint16": Element(16, np.dtype("<u2"), 7),
    "uint32": Element(32, np.dtype("<u4"), 15),
    "uint64": Element(64, np.dtype("<u8")),
    "int4": Element(4, np.dtype(np.int8), 8, signed=True),
    "uint1": Element(1, np.dtype(np.uint8), 9),
    "uint2": Element(2, np.dtype(np.uint8), 10),
    "uint3": Element(3, np.dtype(np.uint8), 12),
    "uint4": Element(4, np.dtype(np.uint8), 11),
    "uint6": Element(6, np.dtype(np.uint8), 13),
}
"""Name of an element type, as in `schema.DATA_TYPES` -> how it is stored. bf16 and fp8 are not read."""


def damaged(path: Path, what: str) -> ModelFileError:
    """The error of a package that cannot be right: which file, what, and what to do."""
    return ModelFileError(f"{path}: {what}: export it again or use another copy")


def stored_bytes(dtype: str, count: int) -> int:
    """Bytes that `count` elements take in a file; sub-byte types share bytes."""
    return (ELEMENTS[dtype].bits * count + 7) // 8


def decode(raw: NDArray[np.uint8], dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
    """Bytes to an array.

    Args:
        raw: (stored_bytes(dtype, elements),) uint8.
        dtype: a key of `ELEMENTS`.
        shape: of the result.

    Returns:
        `shape`, of the element's numpy type; a view of `raw` where no unpacking is needed.
    """
    element, count = ELEMENTS[dtype], math.prod(shape)
    if dtype == "bool":
        return (raw != 0).reshape(shape)
    if element.bits >= 8:
        return np.frombuffer(raw, element.type, count).reshape(shape)
    values = unpack(raw, element.bits, count).reshape(shape)
    if not element.signed:
        return values
    half = 1 << (element.bits - 1)
    return (values ^ half).astype(np.int8) - np.int8(half)


def unpack(packed: NDArray[np.uint8], bits: int, count: int) -> NDArray[np.uint8]:
    """Values of 1, 2, 3, 4, 6 or 8 bits, the lowest bits first; those of 3 and 6 bits may straddle two bytes."""
    if bits == 8:
        return packed[:count]
    whole = np.zeros(-(-len(packed) // 3) * 3, np.uint8)
    whole[: len(packed)] = packed
    parts = whole.reshape(-1, 3).astype(np.uint32)
    words = parts[:, 0] | parts[:, 1] << 8 | parts[:, 2] << 16
    # 24 is a multiple of every width there is.
    values = np.empty((len(words), 24 // bits), np.uint8)
    for place in range(24 // bits):
        values[:, place] = words >> (place * bits) & ((1 << bits) - 1)
    return values.reshape(-1)[:count]


class WeightFile:
    """An open weight file, mapped and not read.

    Args:
        path: the file.
        package: the package it belongs to, for messages.

    Raises:
        ModelFileError: it is too short, or of another version.
    """

    def __init__(self, path: Path, package: Path) -> None:
        self.path, self.package = path, package
        try:
            self.size = path.stat().st_size
            if self.size < _HEADER_BYTES:
                raise damaged(package, f"{path.name} is too short for a weight file ({self.size} bytes)")
            self._map = np.memmap(path, np.uint8, "r")
        except (OSError, ValueError) as error:
            raise damaged(package, f"{path.name} cannot be read ({error})") from None
        version = int(self._map[4:8].view("<u4")[0])
        if version != 2:
            raise damaged(package, f"{path.name} is a weight file of version {version}, and only 2 is known")

    def read(self, offset: int, dtype: str, count: int) -> NDArray[np.uint8]:
        """The bytes of one blob.

        Args:
            offset: of the blob's record.
            dtype: the element type that the program declares.
            count: the number of elements that it declares.

        Raises:
            ModelFileError: the record or the data lie outside the file, or hold something else than declared.
        """
        where = f"the blob at {offset} of {self.path.name}"
        if offset < _HEADER_BYTES or offset % 64 or offset + 64 > len(self._map):
            raise damaged(self.package, f"{where} is not inside the file")
        record = self._map[offset : offset + _RECORD.itemsize].view(_RECORD)[0]
        size, start, expected = int(record["size"]), int(record["offset"]), stored_bytes(dtype, count)
        if int(record["sentinel"]) != _SENTINEL:
            raise damaged(self.package, f"there is no blob at {offset} of {self.path.name}")
        if int(record["type"]) != ELEMENTS[dtype].blob:
            raise damaged(self.package, f"{where} does not hold {dtype}, which the program declares")
        if size != expected:
            raise damaged(self.package, f"{where} has {size} bytes, and the program declares {expected}")
        if start % 64 or start < _HEADER_BYTES or start + size > len(self._map):
            raise damaged(self.package, f"the data of {where} are not inside the file")
        return np.asarray(self._map[start : start + size])
