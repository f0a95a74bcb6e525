"""Every backend with the same small network: its file, how to open it, and how to spoil it."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType, SimpleNamespace

import numpy as np
import pytest

from unet_edge_runtime import coreml_backend, load_backend
from unet_edge_runtime.spec import METADATA_KEY

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
    """A package that the stand-in for coremltools opens: the network's file inside a folder."""

    def make(checkpoint, tmp_path, monkeypatch, **_):
        def package(name, metadata):
            folder = tmp_path / name
            folder.mkdir()
            (folder / "model").write_bytes(checkpoint.read_bytes())
            (folder / "metadata").write_text(metadata)
            return folder

        spec = load_backend(checkpoint).spec.replace(input_size=SIZE)
        monkeypatch.setitem(sys.modules, "coremltools", fake_coremltools(kind))
        monkeypatch.setattr(coreml_backend, "sys", SimpleNamespace(platform="darwin"))
        return Case("coreml", package("a.mlpackage", spec.to_json()), package("b.mlpackage", ""), SIZE)

    return make


def fake_coremltools(kind):
    """What `CoreMLBackend` uses of coremltools on a Mac, with PyTorch where Core ML would be.

    Its contract is Apple's: a picture comes as a PIL image of the input's mode, and numpy is refused there.
    """

    class MLModel:
        def __init__(self, path, compute_units):
            from unet_edge.checkpoint import load_model

            self.network, self.spec = load_model(Path(path) / "model")
            text = (Path(path) / "metadata").read_text()
            self.user_defined_metadata = {METADATA_KEY: text} if text else {}
            assert compute_units == "CPU_AND_NE"

        def get_spec(self):
            described = SimpleNamespace(type=SimpleNamespace(WhichOneof=lambda group: kind))
            return SimpleNamespace(description=SimpleNamespace(input=[described]))

        def predict(self, inputs):
            import torch
            from PIL import Image

            value = inputs["image"]
            if kind == "imageType":
                if not isinstance(value, Image.Image) or value.mode != "RGB":
                    raise TypeError("Image input must be a PIL image of mode RGB")
                value = np.moveaxis(np.asarray(value), 2, 0)[None] / np.float32(255)
            with torch.inference_mode():
                return {"logits": self.network(torch.from_numpy(np.ascontiguousarray(value))).numpy()}

    module = ModuleType("coremltools")
    module.models = SimpleNamespace(MLModel=MLModel)
    module.ComputeUnit = SimpleNamespace(CPU_ONLY="CPU_ONLY", CPU_AND_NE="CPU_AND_NE", ALL="ALL")
    return module


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
