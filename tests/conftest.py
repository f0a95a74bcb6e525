"""What many tests need: real data, specs, and one small network with its files."""

from __future__ import annotations

import os
from pathlib import Path

# The networks of the tests are tiny: several threads only wait for each other. Before torch is imported, and for
# every process that a test starts.
os.environ.setdefault("OMP_NUM_THREADS", "1")

import numpy as np
import pytest

from unet_edge_runtime.spec import ClassInfo, ModelSpec, class_color

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="session")
def real_data():
    """The folder of real data sets; tests that ask for it are skipped where it is absent."""
    folder = ROOT.parent / "shared" / "data"
    if not folder.is_dir():
        pytest.skip("the real data sets (../shared/data) are not on this machine")
    return folder


@pytest.fixture(scope="session")
def make_spec():
    """A function (values, **fields) -> ModelSpec with one class a mask value."""

    def make(values=(0, 255), **fields):
        classes = tuple(
            ClassInfo(f"class {label}", value, value if isinstance(value, tuple) else class_color(label))
            for label, value in enumerate(values)
        )
        return ModelSpec(**{"channels": 3, "classes": classes, "outputs": len(classes), "multiple": 4, **fields})

    return make


@pytest.fixture(scope="session")
def make_model():
    """A function (**fields of UNetConfig) -> UNet whose batch norms have seen data, in evaluation mode.

    Its logits have a real network's size, and its classes share the pixels about equally.
    """
    import torch
    from torch.nn.functional import interpolate

    from unet_edge.model import UNet, UNetConfig

    def make(seed=0, **fields):
        torch.manual_seed(seed)
        config = UNetConfig(**{"in_channels": 3, "classes": 2, "base_channels": 4, "depth": 2, **fields})
        model = UNet(config).train()
        with torch.no_grad():
            noise = torch.rand(40, config.in_channels, 6, 6)
            images = interpolate(noise, (4 * config.multiple, 4 * config.multiple), mode="bilinear")
            for batch in images.split(4):
                model(batch)
            model.eval()
            logits = model(images).movedim(1, 0).flatten(1)
            factor = 3 / logits.std(dim=1)
            model.outc.conv.weight *= factor[:, None, None, None]
            model.outc.conv.bias.copy_((model.outc.conv.bias - logits.median(dim=1).values) * factor)
        return model

    return make


@pytest.fixture(scope="session")
def small_checkpoint(tmp_path_factory, make_model, make_spec):
    """A checkpoint of a small two-class RGB network."""
    from unet_edge.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("small") / "small.pth"
    save_checkpoint(path, make_model(), make_spec(), {})
    return path


@pytest.fixture(scope="session")
def small_onnx(small_checkpoint):
    """`small_checkpoint` as ONNX, for any size."""
    from unet_edge_export import export_model

    return export_model(small_checkpoint, "onnx", dynamic=True).path


@pytest.fixture
def photo():
    """(50, 70, 3) uint8: smooth, with an edge, sides that no network's multiple divides."""
    y, x = np.mgrid[:50, :70]
    red = 127 + 100 * np.sin(y / 9) * np.cos(x / 7)
    return np.stack([red, 3 * x, np.where(x + y > 60, 220, 30)], axis=-1).astype(np.uint8)
