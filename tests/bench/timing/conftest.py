"""A small network with its files, pictures with masks, and a protocol that takes no time."""

from __future__ import annotations

import textwrap
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import Image

from unet_edge_bench.timing.plan import Protocol

SHORT = Protocol(
    launches=2, rounds=2, seconds_per_turn=0.0, min_samples=2, settle_seconds=0.0, warmup_seconds=0.1, timeout=60
)


@pytest.fixture(scope="session")
def files(tmp_path_factory, make_model, make_spec):
    """`checkpoint`, `onnx` (any size), `fixed` (48x64 only), `other` (ONNX of other weights)."""
    from unet_edge.checkpoint import save_checkpoint
    from unet_edge_export import export_model

    folder = tmp_path_factory.mktemp("timing")
    for name, seed in (("model", 3), ("stranger", 4)):
        save_checkpoint(folder / f"{name}.pth", make_model(seed=seed), make_spec(), {})
    checkpoint, stranger = folder / "model.pth", folder / "stranger.pth"
    return SimpleNamespace(
        checkpoint=checkpoint,
        onnx=export_model(checkpoint, "onnx", folder / "model.onnx", dynamic=True).path,
        fixed=export_model(checkpoint, "onnx", folder / "fixed.onnx", size=(48, 64)).path,
        other=export_model(stranger, "onnx", folder / "other.onnx", dynamic=True).path,
    )


@pytest.fixture(scope="session")
def pictures(tmp_path_factory):
    """`images` and `masks`: three pictures of 60x70 with their true masks."""
    folder = tmp_path_factory.mktemp("pictures")
    for name in ("images", "masks"):
        (folder / name).mkdir()
    for number in range(3):
        pixels = np.random.default_rng(number).integers(0, 256, (12, 14, 3), np.uint8)
        Image.fromarray(pixels).resize((70, 60)).save(folder / "images" / f"p{number}.png")
        Image.fromarray(255 * (pixels[:, :, 0] > 128).astype(np.uint8)).resize((70, 60), 0).save(
            folder / "masks" / f"p{number}.png"
        )
    return SimpleNamespace(images=folder / "images", masks=folder / "masks")


@pytest.fixture
def image(pictures):
    return sorted(pictures.images.iterdir())[0]


@pytest.fixture
def make_backend(tmp_path, monkeypatch):
    """A function (code of `_run`, code of `__init__`) -> "module:Class", which a worker can import."""
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))
    head = """
        import os, sys, time
        import numpy as np
        from unet_edge_runtime.backend import Backend
        from unet_edge_runtime.errors import BackendError
        from unet_edge_runtime.spec import ClassInfo, ModelSpec

        CLASSES = (ClassInfo("a", 0, (0, 0, 0)), ClassInfo("b", 1, (9, 9, 9)))

        class Made(Backend):
            name = "made"
            def __init__(self, path, threads=None, **options):
                self.path, self.threads, self.options = path, threads, options
                self.spec = ModelSpec(channels=3, classes=CLASSES, outputs=2, multiple=4)
    """
    count = 0

    def make(run="pass", opening="pass", imports=""):
        nonlocal count
        count += 1
        body = textwrap.dedent(head)
        body += textwrap.indent(textwrap.dedent(opening), " " * 8) + "\n"
        body += "    def _run(self, batch):\n" + textwrap.indent(textwrap.dedent(run), " " * 8)
        body += "\n        return np.stack([batch[:, 0], batch[:, 1]], axis=1)\n"
        (tmp_path / f"made{count}.py").write_text(textwrap.dedent(imports) + body)
        return f"made{count}:Made"

    return make
