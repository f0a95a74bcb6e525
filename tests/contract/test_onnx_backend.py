"""An ONNX file whose spec and graph contradict each other is refused when it is opened, not when it runs."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

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


def test_nothing_is_reported_to_the_runtime_s_maker(small_onnx, tmp_path):
    """Since 1.32 ONNX Runtime would leave a device id and a queue of events in these folders, and send them."""
    code = f"from unet_edge_runtime import load_backend; load_backend({str(small_onnx)!r})"
    paths = os.pathsep.join(str(Path(__file__).parents[2] / folder) for folder in (".", "runtime"))
    private = {"HOME": str(tmp_path), "TMPDIR": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "cache")}
    environment = {**os.environ, **private, "PYTHONPATH": paths, "PYTHONDONTWRITEBYTECODE": "1"}
    environment.pop("ORT_DISABLE_TELEMETRY", None)
    subprocess.run([sys.executable, "-c", code], check=True, env=environment)
    assert list(tmp_path.rglob("*")) == []
