"""Small trained checkpoints: batch norm, biases and logits are far from their initial values."""

from __future__ import annotations

import copy
import functools
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from unet_edge.checkpoint import class_infos, save_checkpoint
from unet_edge.model import UNet, UNetConfig
from unet_edge_runtime.spec import ModelSpec

SHARED = Path(__file__).resolve().parents[3] / "shared" / "data"

MakeCheckpoint = Callable[..., Path]


def lively_model(channels: int = 3, outputs: int = 2, depth: int = 2, up: str = "transposed") -> UNet:
    """A network that has learned to tell brightness apart, so that it is decided nearly everywhere."""
    return copy.deepcopy(_trained(channels, outputs, depth, up))


@functools.cache
def _trained(channels: int, outputs: int, depth: int, up: str) -> UNet:
    torch.manual_seed(0)
    model = UNet(UNetConfig(channels, outputs, base_channels=4, depth=depth, up=up)).train()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    classes = max(2, outputs)
    for _ in range(60):
        # Low frequencies, as photographs have them, at every brightness.
        coarse = torch.rand(4, channels, 4, 4) * torch.rand(4, 1, 1, 1) + torch.rand(4, 1, 1, 1) / 2
        x = torch.nn.functional.interpolate(coarse, size=(32, 32), mode="bilinear").clamp(0, 1)
        truth = (x.mean(dim=1) * classes * 1.2).long().clamp(max=classes - 1)
        logits = model(x)
        if outputs == 1:
            loss = torch.nn.functional.binary_cross_entropy_with_logits(logits[:, 0], truth.float())
        else:
            loss = torch.nn.functional.cross_entropy(logits, truth)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    return model.eval()


@pytest.fixture
def make_checkpoint(tmp_path: Path) -> MakeCheckpoint:
    def make(
        channels: int = 3,
        outputs: int = 2,
        depth: int = 2,
        up: str = "transposed",
        name: str = "run/best.pth",
        **spec: Any,
    ) -> Path:
        model = lively_model(channels, outputs, depth, up)
        spec.setdefault("training_sizes", ((64, 96),))
        described = ModelSpec(
            channels=channels,
            classes=class_infos(list(range(max(2, outputs)))),
            outputs=outputs,
            multiple=model.config.multiple,
            **spec,
        )
        path = tmp_path / name
        save_checkpoint(path, model, described, {})
        return path

    return make


@pytest.fixture
def photos(tmp_path: Path) -> list[Path]:
    """Two images: real ones where the data folder is there, made-up ones elsewhere."""
    real = sorted((SHARED / "camvid" / "val" / "images").glob("*.jpg"))[:2]
    if real:
        return real
    generator = np.random.default_rng(1)
    folder = tmp_path / "photos"
    folder.mkdir()
    paths = [folder / "one.png", folder / "two.png"]
    for path, size in zip(paths, [(120, 90), (70, 131)], strict=True):
        coarse = Image.fromarray(generator.integers(0, 256, (5, 7, 3), np.uint8))
        coarse.resize(size, Image.Resampling.BICUBIC).save(path)
    return paths
