"""One demo, run once on drawn pictures with the real converters and runtimes, shared by the tests of this folder."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

NAMES = ("ground", "disc", "bar")


def draw_sample(folder: Path, progress=None):
    """Fourteen grey pictures with a bright disc and a dark bar, as `make_brain_sample` would leave them."""
    images, masks = folder / "images", folder / "masks"
    if not folder.exists():
        images.mkdir(parents=True)
        masks.mkdir()
        y, x = np.mgrid[:44, :60]
        for number in range(14):
            rng = np.random.default_rng(number)
            mask = np.zeros((44, 60), np.uint8)
            mask[:, 6 + 3 * number : 12 + 3 * number] = 2
            mask[(y - rng.integers(12, 32)) ** 2 + (x - rng.integers(12, 48)) ** 2 < 90] = 1
            image = rng.integers(90, 120, mask.shape) + 110 * (mask == 1) - 80 * (mask == 2)
            Image.fromarray(image.astype(np.uint8)).save(images / f"slice_{number:02}.png")
            Image.fromarray(mask).save(masks / f"slice_{number:02}.png")
        (folder / "val.txt").write_text("slice_05\nslice_06\nslice_07\n")
    return images, masks


@pytest.fixture(scope="session")
def small_plan():
    from unet_edge.training.config import TrainConfig
    from unet_edge.training.start import NetworkConfig
    from unet_edge_bench.demo import Plan
    from unet_edge_bench.timing.plan import Protocol

    return Plan(
        sample=draw_sample,
        class_names=NAMES,
        network=NetworkConfig(8, 2, bilinear=True, scale=1.0),
        training=TrainConfig(epochs=6, batch_size=2),
        required={"disc": 0.5},
        protocol=Protocol(2, 2, 0.0, min_samples=2, settle_seconds=0.0, warmup_seconds=0.1),
        threads=1,
    )


@contextlib.contextmanager
def one_thread():
    """Bits are promised to be equal on the same number of threads only, and a split sum has several orders."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(before)


@pytest.fixture
def single_threaded():
    with one_thread():
        yield


@pytest.fixture(scope="session")
def demo(tmp_path_factory, small_plan):
    """The folder of a finished demo; tests that change it do so in a copy."""
    from unet_edge_bench.demo import run_demo

    folder = tmp_path_factory.mktemp("finished") / "demo"
    with one_thread():
        run_demo(folder, small_plan)
    return folder


@pytest.fixture
def results(demo):
    return json.loads((demo / "results.json").read_text(encoding="utf-8"))
