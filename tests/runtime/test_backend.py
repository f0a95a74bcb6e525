"""Finding a backend, and what is said when that fails."""

from __future__ import annotations

import importlib.metadata

import pytest

from unet_edge_runtime.backend import backend_for, backend_names, load_backend
from unet_edge_runtime.errors import BackendError, MissingExtraError, ModelFileError


def test_the_kind_of_file_decides(tmp_path):
    for name, backend in {
        "a.onnx": "onnx",
        "a.ONNX": "onnx",
        "a.mlpackage": "coreml",
        "a.pth": "torch",
        "a.pt": "torch",
    }.items():
        (tmp_path / name).touch()
        assert backend_for(tmp_path / name) == backend
    (tmp_path / "a.tflite").touch()
    with pytest.raises(ModelFileError, match=r"a\.tflite: unknown kind of model; expected one of .*\.onnx"):
        backend_for(tmp_path / "a.tflite")
    with pytest.raises(ModelFileError, match="no such model file"):
        backend_for(tmp_path / "missing.onnx")


def test_what_is_installed():
    assert {"onnx", "coreml", "torch"} <= set(backend_names())
    with pytest.raises(BackendError, match=r"unknown backend 'tpu': installed are .*onnx"):
        load_backend("a.onnx", "tpu")


class Plugin:
    """An entry point whose loading fails, or gives a class."""

    name = "plugin"

    def __init__(self, name, result):
        self.name, self.result = name, result

    def load(self):
        if isinstance(self.result, Exception):
            raise self.result
        return self.result


def test_a_third_party_can_add_one(monkeypatch):
    monkeypatch.setattr(
        importlib.metadata, "entry_points", lambda group: [Plugin("mine", lambda path, **options: (path, options))]
    )
    path, options = load_backend("a.bin", "mine", threads=3)
    assert (path.name, options) == ("a.bin", {"threads": 3})


@pytest.mark.parametrize(
    ("name", "error", "kind", "message"),
    [
        ("torch", ModuleNotFoundError(name="torch"), MissingExtraError, r"torch: pip install 'unet-edge\[train\]'"),
        ("coreml", ModuleNotFoundError(name="coremltools.x"), MissingExtraError, r"coremltools: .*unet-edge\[export\]"),
        ("onnx", ModuleNotFoundError(name="onnxruntime"), BackendError, "needs onnxruntime: pip install onnxruntime$"),
        ("onnx", ImportError("DLL load failed"), BackendError, r"cannot be loaded \(DLL load failed\): install it"),
    ],
)
def test_a_backend_that_cannot_be_imported(monkeypatch, name, error, kind, message):
    monkeypatch.setattr(importlib.metadata, "entry_points", lambda group: [Plugin(name, error)])
    with pytest.raises(kind, match=f"backend {name} .*{message}"):
        load_backend("a.file", name)
