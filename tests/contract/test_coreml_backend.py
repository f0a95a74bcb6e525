"""What Core ML needs besides: a Mac, coremltools, and a picture where the package takes one."""

from __future__ import annotations

import sys
from types import SimpleNamespace

import pytest

from unet_edge_runtime import coreml_backend
from unet_edge_runtime.coreml_backend import CoreMLBackend
from unet_edge_runtime.errors import BackendError, MissingExtraError, ModelFileError


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "a.mlpackage"
    folder.mkdir()
    return folder


def test_elsewhere_it_points_to_onnx(package, monkeypatch):
    monkeypatch.setattr(coreml_backend, "sys", SimpleNamespace(platform="linux"))
    with pytest.raises(BackendError, match=r"a\.mlpackage: Core ML runs on macOS only; .* --backend onnx"):
        CoreMLBackend(package)


def test_without_coremltools_it_names_the_extra(package, monkeypatch):
    monkeypatch.setattr(coreml_backend, "sys", SimpleNamespace(platform="darwin"))
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(MissingExtraError, match=r"coremltools: pip install 'unet-edge\[export\]'"):
        CoreMLBackend(package)


def test_compute_units(package, monkeypatch):
    monkeypatch.setattr(coreml_backend, "sys", SimpleNamespace(platform="darwin"))
    with pytest.raises(BackendError, match="compute units must be one of cpu, gpu, ane, all, not 'npu'"):
        CoreMLBackend(package, compute_units="npu")


def test_a_file_is_no_package(tmp_path):
    (tmp_path / "a.mlpackage").touch()
    with pytest.raises(ModelFileError, match="no such Core ML package"):
        CoreMLBackend(tmp_path / "a.mlpackage")
