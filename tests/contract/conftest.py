"""Every backend with the same small network: its file, how to open it, and how to spoil it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.mac import make_fake_package, pretend_mac
from unet_edge_runtime import load_backend

SIZE = (32, 48)  # of the kinds that have one


@dataclass
class Case:
    """One backend's file.

    Attributes:
        backend: its name.
        path: a good file.
        foreign: a file that the runtime can load, but that unet-edge did not make.
        size: (height, width) that the graph takes, or None for any.
    """

    backend: str
    path: Path
    foreign: Path
    size: tuple[int, int] | None = None

    def open(self, path=None):
        return load_backend(path or self.path, self.backend)

    @property
    def content(self):
        """The file that holds the model: itself, or the one inside a package."""
        return self.path / "model" if self.path.is_dir() else self.path


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, make_model, make_spec):
    """A checkpoint whose spec knows no size."""
    from unet_edge.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("contract") / "net.pth"
    save_checkpoint(path, make_model(seed=3), make_spec(), {})
    return path


@pytest.fixture(scope="session")
def onnx_any(checkpoint):
    from unet_edge_export import export_model

    return export_model(checkpoint, "onnx", checkpoint.with_name("any.onnx"), dynamic=True).path


@pytest.fixture(scope="session")
def onnx_fixed(checkpoint):
    from unet_edge_export import export_model

    return export_model(checkpoint, "onnx", checkpoint.with_name("fixed.onnx"), size=SIZE).path


@pytest.fixture(scope="session")
def foreign_onnx(onnx_any):
    """The same graph, saying nothing about images."""
    import onnx

    model = onnx.load(onnx_any)
    del model.metadata_props[:]
    path = onnx_any.with_name("foreign.onnx")
    onnx.save(model, path)
    return path


def torch_case(checkpoint, **_):
    import torch

    foreign = checkpoint.with_name("foreign.pth")
    torch.save({"conv.weight": torch.zeros(3)}, foreign)
    return Case("torch", checkpoint, foreign)


def onnx_case(onnx_any, foreign_onnx, **_):
    return Case("onnx", onnx_any, foreign_onnx)


def onnx_fixed_case(onnx_fixed, foreign_onnx, **_):
    return Case("onnx", onnx_fixed, foreign_onnx, SIZE)


def coreml_case(kind):
    """A package that the stand-in for coremltools opens: the network as ONNX inside a folder."""

    def make(checkpoint, onnx_fixed, tmp_path, monkeypatch, **_):
        spec = load_backend(checkpoint).spec.replace(input_size=SIZE)
        network = onnx_fixed.read_bytes()
        pretend_mac(monkeypatch, tmp_path / "cache")
        package = make_fake_package(tmp_path / "a.mlpackage", network, spec, kind)
        foreign = make_fake_package(tmp_path / "b.mlpackage", network, spec, kind, metadata=False)
        return Case("coreml", package, foreign, SIZE)

    return make


CASES = {
    "torch": torch_case,
    "onnx": onnx_case,
    "onnx-fixed": onnx_fixed_case,
    "coreml-image": coreml_case("imageType"),
    "coreml-array": coreml_case("multiArrayType"),
}


@pytest.fixture(params=CASES.values(), ids=CASES)
def case(request, checkpoint, onnx_any, onnx_fixed, foreign_onnx, tmp_path, monkeypatch):
    """Each backend in turn."""
    return request.param(
        checkpoint=checkpoint,
        onnx_any=onnx_any,
        onnx_fixed=onnx_fixed,
        foreign_onnx=foreign_onnx,
        tmp_path=tmp_path,
        monkeypatch=monkeypatch,
    )
