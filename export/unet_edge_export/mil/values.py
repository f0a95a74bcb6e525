"""Typed values of an ML Program, and the constants among them."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .weights import ELEMENTS, WeightFile, damaged, decode, stored_bytes

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Constant", "Shape", "TensorType", "Value", "shown"]

Shape = tuple[int | None, ...]
Value = Any
"""What a constant decodes to: an array, or a str, or a list of str."""

# What `TensorValue` keeps in which field -> the element types that may stand there; `bytes` takes every numeric one.
_FIELDS = {
    "floats": ("fp32",),
    "doubles": ("fp64",),
    "ints": ("int32", "int16", "int8", "uint8", "uint16"),
    "longInts": ("int64", "uint32", "uint64", "int32"),
    "bools": ("bool",),
}


def shown(name: str) -> str:
    """A name out of a file, short and on one line."""
    return repr(name if len(name) <= 60 else f"{name[:57]}...")


@dataclass(frozen=True)
class TensorType:
    """A named value's type.

    Attributes:
        name: of the value; empty for a constant that has none.
        dtype: element type, a value of `schema.DATA_TYPES`; or list, tuple, dictionary, state, unknown.
        shape: sides; None where a side is only known when the program runs. () for a scalar.
    """

    name: str
    dtype: str
    shape: Shape = ()

    @property
    def elements(self) -> int | None:
        """How many, or None where a side is open."""
        return None if None in self.shape else math.prod(side or 0 for side in self.shape)


@dataclass(frozen=True)
class Constant:
    """A value that stands in the package, decoded when asked for.

    Attributes:
        type: declared.
        proto: the `Value` message.
        path: the package, for messages.
        weight_file: opens a weight file by the name that the program uses.
    """

    type: TensorType
    proto: Any
    path: Path
    weight_file: Callable[[str], WeightFile]

    @property
    def in_weight_file(self) -> bool:
        """Whether the numbers stand in the weight file rather than in the program."""
        return self.proto.WhichOneof("value") == "blobFileValue"

    @property
    def blob(self) -> tuple[str, int] | None:
        """(file, offset) of numbers in the weight file: constants with the same one share them."""
        blob = self.proto.blobFileValue
        return (blob.fileName, blob.offset) if self.in_weight_file else None

    @property
    def stored_bytes(self) -> int:
        """Bytes that the numbers take in the package; 0 for texts."""
        if self.type.dtype not in ELEMENTS:
            return 0
        return stored_bytes(self.type.dtype, self.type.elements or 0)

    def value(self) -> Value:
        """Decode: an array (scalars have shape ()), or a str, or a list of str.

        Raises:
            ModelFileError: unknown element type, or not as many numbers as declared, or outside the file.
        """
        dtype, shape = self.type.dtype, self._shape()
        count = math.prod(shape)
        tensor = self.proto.immediateValue.tensor
        if dtype == "string":
            return self._texts(list(tensor.strings.values), shape)
        if dtype not in ELEMENTS:
            raise damaged(self.path, f"a constant of type {dtype} cannot be read")
        if self.in_weight_file:
            raw = self.weight_file(self.proto.blobFileValue.fileName).read(
                self.proto.blobFileValue.offset, dtype, count
            )
            return decode(raw, dtype, shape)
        field = tensor.WhichOneof("value")
        if field == "bytes" or (field is None and count == 0):
            return self._from_bytes(tensor.bytes.values, dtype, shape)
        if dtype not in _FIELDS.get(field or "", ()):
            raise damaged(self.path, f"a constant of type {dtype} is stored as {field or 'nothing'}")
        return self._from_numbers(getattr(tensor, field).values, dtype, shape)

    def _shape(self) -> tuple[int, ...]:
        shape = tuple(side for side in self.type.shape if side is not None)
        if len(shape) != len(self.type.shape) or (len(shape) > 1 and 0 in shape):
            raise damaged(self.path, f"a constant has the shape {self.type.shape}")
        return shape

    def _texts(self, texts: list[str], shape: tuple[int, ...]) -> str | list[str]:
        if len(texts) != math.prod(shape):
            raise damaged(self.path, f"a constant holds {len(texts)} texts and declares {math.prod(shape)}")
        return texts if shape else texts[0]

    def _from_bytes(self, content: bytes, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        expected = stored_bytes(dtype, math.prod(shape))
        if len(content) != expected:
            raise damaged(self.path, f"a constant has {len(content)} bytes and declares {expected}")
        return decode(np.frombuffer(content, np.uint8), dtype, shape)

    def _from_numbers(self, numbers: Any, dtype: str, shape: tuple[int, ...]) -> NDArray[Any]:
        if len(numbers) != math.prod(shape):
            raise damaged(self.path, f"a constant holds {len(numbers)} numbers and declares {math.prod(shape)}")
        wide = np.array(numbers, None if len(numbers) else ELEMENTS[dtype].type)
        values = wide.astype(ELEMENTS[dtype].type)
        if wide.dtype.kind in "iu" and not np.array_equal(values, wide):
            raise damaged(self.path, f"a constant of type {dtype} holds numbers that do not fit it")
        return values.reshape(shape)
