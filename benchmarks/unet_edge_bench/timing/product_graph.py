"""An ONNX model of one matrix product, written byte by byte: a board has no onnx package to make it with.

Field numbers are those of https://github.com/onnx/onnx/blob/main/onnx/onnx.proto, the encoding is protobuf's.
"""

from __future__ import annotations

__all__ = ["product_graph"]

_IR_VERSION, _OPSET, _FLOAT = 8, 18, 1


def product_graph(side: int) -> bytes:
    """`c = a b` for float32 matrices of `side` x `side`, as the content of an .onnx file."""
    node = _text(1, "a") + _text(1, "b") + _text(2, "c") + _text(4, "MatMul")
    shape = 2 * _part(1, _number(1, side))
    tensor = _part(1, _number(1, _FLOAT) + _part(2, shape))
    values = {name: _text(1, name) + _part(2, tensor) for name in "abc"}
    graph = _part(1, node) + _text(2, "product") + _part(11, values["a"]) + _part(11, values["b"])
    return _number(1, _IR_VERSION) + _part(7, graph + _part(12, values["c"])) + _part(8, _number(2, _OPSET))


def _number(field: int, value: int) -> bytes:
    return bytes([field << 3]) + _varint(value)


def _text(field: int, value: str) -> bytes:
    return _part(field, value.encode())


def _part(field: int, content: bytes) -> bytes:
    return bytes([field << 3 | 2]) + _varint(len(content)) + content


def _varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the top bit says that more follow."""
    digits = bytearray()
    while value > 127:
        digits.append(value & 127 | 128)
        value >>= 7
    return bytes([*digits, value])
