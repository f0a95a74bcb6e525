"""Runs and engines small enough for a test, and ways to stop and to compare them."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import Engine
from unet_edge.training.reporter import Reporter
from unet_edge.training.start import NetworkConfig

SMALL = NetworkConfig(4, 2, True, scale=1.0)
QUICK = TrainConfig(epochs=3, batch_size=2, seed=5)
CPU = torch.device("cpu")


class StopAfter(Reporter):
    """Sends ourselves Ctrl-C after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, images, loss, learning_rate, dice=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).weights


def make_engine(loss="ce+dice", weights=None, frozen=False, say=None, wrap=None, **fields):
    torch.manual_seed(0)
    model = UNet(UNetConfig(base_channels=4, depth=2)).train()
    if frozen:
        model.eval()
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    config = TrainConfig(**{"batch_size": 4, **fields})
    return Engine(model, optimizer, make_loss(loss, weights), config, CPU, say, wrap)


def batch(seed, count=4):
    generator = torch.Generator().manual_seed(seed)
    labels = torch.randint(0, 2, (count, 16, 24), generator=generator, dtype=torch.uint8)
    return torch.rand(count, 3, 16, 24, generator=generator), labels


def everything(engine):
    """All that a step changes."""
    optimizer = engine.optimizer.state_dict()["state"]
    values = {f"{number} {name}": value for number, state in optimizer.items() for name, value in state.items()}
    return {**engine.model.state_dict(), **values, "random": torch.get_rng_state()}


def assert_same(ours, theirs):
    ours, theirs = everything(ours), everything(theirs)
    assert ours.keys() == theirs.keys()
    assert [name for name in ours if not torch.equal(ours[name], theirs[name])] == []
