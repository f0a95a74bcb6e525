"""Messages between a process and its child over a pipe: JSON and arrays, never pickle."""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Sequence
from typing import IO, TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Message", "receive", "send"]

Message = tuple[dict[str, Any], list["NDArray[np.generic]"]]
"""What is said, as JSON holds it, and arrays of numbers."""

_PREFIX = struct.Struct("<4sIQ")  # magic, bytes of JSON, bytes of all arrays
_MAGIC = b"UEC1"
_MAX_JSON = 1 << 26  # bytes; a compute plan has some hundred an operation
_MAX_ARRAYS = 1 << 36  # bytes


def send(stream: IO[bytes], content: dict[str, Any], arrays: Sequence[NDArray[np.generic]] = ()) -> None:
    """Write one message and flush.

    Args:
        stream: a binary pipe.
        content: plain data.
        arrays: of numbers or truth values, of any shape.

    Raises:
        OSError: nobody reads any more.
    """
    blocks = [np.ascontiguousarray(array) for array in arrays]
    shapes = [[block.dtype.str, *array.shape] for block, array in zip(blocks, arrays, strict=True)]
    text = json.dumps({"content": content, "arrays": shapes}).encode()
    stream.write(_PREFIX.pack(_MAGIC, len(text), sum(block.nbytes for block in blocks)) + text)
    for block in blocks:
        stream.write(block.tobytes())
    stream.flush()


def receive(stream: IO[bytes]) -> Message:
    """Read what `send` wrote.

    Raises:
        EOFError: the other side is gone, between messages or within one.
        ValueError: this is no message.
    """
    magic, text_size, array_size = _PREFIX.unpack(_exactly(stream, _PREFIX.size))
    if magic != _MAGIC or text_size > _MAX_JSON or array_size > _MAX_ARRAYS:
        raise ValueError("no message of this protocol")
    envelope = json.loads(_exactly(stream, text_size))
    kinds = [(np.dtype(kind), tuple(shape)) for kind, *shape in envelope["arrays"]]
    if any(kind.kind not in "biuf" for kind, _ in kinds):
        raise ValueError("arrays hold numbers only")
    if sum(kind.itemsize * math.prod(shape) for kind, shape in kinds) != array_size:
        raise ValueError("arrays do not have the announced size")
    arrays = [
        np.frombuffer(_exactly(stream, kind.itemsize * math.prod(shape)), kind).reshape(shape) for kind, shape in kinds
    ]
    return envelope["content"], arrays


def _exactly(stream: IO[bytes], size: int) -> bytes:
    blocks = bytearray()
    while len(blocks) < size:
        block = stream.read(min(size - len(blocks), 1 << 24))
        if not block:
            raise EOFError("the pipe was closed")
        blocks += block
    return bytes(blocks)
