"""Messages over a pipe: whole, exact, and nothing but plain data."""

from __future__ import annotations

import io
import json
import struct

import numpy as np
import pytest

from unet_edge_runtime.coreml_wire import receive, send


def sent(content, arrays=()):
    stream = io.BytesIO()
    send(stream, content, arrays)
    stream.seek(0)
    return stream


@pytest.mark.parametrize("dtype", [np.float32, np.float16, np.int32, np.uint8, np.bool_])
@pytest.mark.parametrize("shape", [(2, 3, 5), (7,), (), (0, 4)])
def test_arrays_arrive_as_they_were_sent(dtype, shape):
    array = np.arange(np.prod(shape, dtype=int)).reshape(shape).astype(dtype)
    content, (arrived,) = receive(sent({"do": "predict"}, [array]))
    assert content == {"do": "predict"}
    assert arrived.dtype == array.dtype
    assert arrived.shape == shape
    np.testing.assert_array_equal(arrived, array)


def test_arrays_in_any_order_of_memory_and_several_messages():
    first, second = np.asfortranarray(np.arange(6.0).reshape(2, 3)), np.arange(12)[::3]
    stream = io.BytesIO()
    send(stream, {"a": None}, [first, second])
    send(stream, {"b": "ü"})
    stream.seek(0)
    content, arrays = receive(stream)
    assert content == {"a": None}
    np.testing.assert_array_equal(arrays[0], first)
    np.testing.assert_array_equal(arrays[1], second)
    assert receive(stream) == ({"b": "ü"}, [])
    with pytest.raises(EOFError):
        receive(stream)


def test_a_message_cut_anywhere_is_the_end():
    whole = sent({"a": 1}, [np.arange(4)]).getvalue()
    for length in range(len(whole)):
        with pytest.raises(EOFError):
            receive(io.BytesIO(whole[:length]))


def packed(envelope, array_size=0, magic=b"UEC1"):
    text = json.dumps(envelope).encode()
    return io.BytesIO(struct.pack("<4sIQ", magic, len(text), array_size) + text + bytes(min(array_size, 99)))


@pytest.mark.parametrize(
    "stream",
    [
        io.BytesIO(b"Traceback (most recent call last):\n"),
        packed({"content": {}, "arrays": []}, magic=b"XXXX"),
        packed({"content": {}, "arrays": []}, array_size=1 << 60),
        packed({"content": {}, "arrays": [["<f4", 2]]}, array_size=4),
        packed({"content": {}, "arrays": [["|O", 1]]}, array_size=8),
    ],
    ids=["text", "magic", "huge", "sizes", "objects"],
)
def test_anything_else_is_refused(stream):
    with pytest.raises(ValueError, match=r"no message|numbers only|announced size"):
        receive(stream)


def test_objects_are_never_sent():
    with pytest.raises(ValueError, match="numbers only"):
        receive(sent({}, [np.array([{}], dtype=object)]))
