"""An ONNX file whose spec and graph contradict each other is refused when it is opened, not when it runs."""

from __future__ import annotations

import onnx
import pytest

from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.onnx_backend import OnnxBackend
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec


def with_spec(path, target, text):
    model = onnx.load(path)
    (entry,) = (entry for entry in model.metadata_props if entry.key == METADATA_KEY)
    entry.value = text
    onnx.save(model, target)
    return target


@pytest.mark.parametrize(
    ("file", "changes"),
    [
        ("onnx_any", {"input_name": "x"}),
        ("onnx_any", {"output_name": "mask"}),
        ("onnx_any", {"channels": 1}),
        ("onnx_any", {"input_size": (32, 48)}),
        ("onnx_fixed", {"input_size": None}),
        ("onnx_fixed", {"input_size": (48, 32)}),
    ],
)
def test_a_spec_of_another_graph(request, tmp_path, file, changes):
    source = request.getfixturevalue(file)
    spec = OnnxBackend(source).spec.replace(**changes)
    with pytest.raises(ModelFileError, match=r"bad\.onnx: its graph .* export it again"):
        OnnxBackend(with_spec(source, tmp_path / "bad.onnx", spec.to_json()))


@pytest.mark.parametrize("text", ["", "{}", "no json", '{"version": 99}'])
def test_a_damaged_spec(onnx_any, tmp_path, text):
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        OnnxBackend(with_spec(onnx_any, tmp_path / "bad.onnx", text))


def test_errors_of_the_runtime_stay_quiet(tmp_path, capfd):
    (tmp_path / "bad.onnx").write_bytes(b"garbage")
    with pytest.raises(ModelFileError):
        OnnxBackend(tmp_path / "bad.onnx")
    assert capfd.readouterr() == ("", "")


def test_threads_change_no_result(onnx_any):
    import numpy as np

    batch = np.random.default_rng(0).random((1, 3, 32, 48), np.float32)
    one, two = (OnnxBackend(onnx_any, threads=threads) for threads in (1, 2))
    np.testing.assert_allclose(one.run(batch), two.run(batch), atol=1e-5)
    assert isinstance(one.spec, ModelSpec)
