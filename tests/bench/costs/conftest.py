"""One small network with each decoder, as checkpoint, ONNX and Core ML."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import pytest

SIZE = (48, 64)


@pytest.fixture(scope="session", params=["transposed", "bilinear"])
def network(request, tmp_path_factory, make_model, make_spec):
    """`up`, `folder`, `checkpoint`, `onnx` (any size) and `fixed` (ONNX of `SIZE`, one image)."""
    from unet_edge.checkpoint import save_checkpoint
    from unet_edge_export import export_model

    folder = tmp_path_factory.mktemp(request.param)
    checkpoint = folder / "model.pth"
    save_checkpoint(checkpoint, make_model(up=request.param), make_spec(), {})

    def export(name: str, kind: str, **options: object) -> Path:
        return export_model(checkpoint, kind, folder / name, **options).path

    return SimpleNamespace(
        up=request.param,
        folder=folder,
        checkpoint=checkpoint,
        onnx=export("any.onnx", "onnx", dynamic=True),
        fixed=export("fixed.onnx", "onnx", size=SIZE),
    )


@pytest.fixture(scope="session")
def package(network):
    """The same network for Core ML, in fp32, of `SIZE`."""
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    from unet_edge_export import export_model

    output = network.folder / "model.mlpackage"
    return export_model(network.checkpoint, "coreml", output, size=SIZE, precision="fp32").path
