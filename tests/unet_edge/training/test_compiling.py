"""torch.compile, and going on without it where it fails."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from .conftest import batch, make_engine


def test_a_python_that_torch_does_not_compile_for(monkeypatch):
    def refuse(module):
        raise RuntimeError("torch.compile is not supported on Python 3.99+")

    monkeypatch.setattr(torch, "compile", refuse)
    said = []
    engine, plain = make_engine(say=said.append, compile=True), make_engine()
    assert said == ["torch.compile fails here (torch.compile is not supported on Python 3.99+): going on without it"]
    assert engine.step(*batch(0)) == plain.step(*batch(0))


SCRIPT = """
import torch
from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import Engine
torch.manual_seed(0)
runs = []
for compile in (False, True):
    torch.manual_seed(0)
    model = UNet(UNetConfig(base_channels=2, depth=1)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    engine = Engine(model, optimizer, make_loss("ce"), TrainConfig(compile=compile), torch.device("cpu"), print)
    x, y = torch.rand(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
    engine.step(x, y)
    engine.step(x, y)
    runs.append(engine.model.state_dict())
assert list(runs[0]) == list(runs[1])
print("largest difference", max((runs[0][name] - runs[1][name]).abs().max().item() for name in runs[0]))
"""


@pytest.mark.slow
@pytest.mark.parametrize("compiler", ["", "/nonexistent/c++"])
def test_compiling_is_left_out_where_it_fails(tmp_path, compiler):
    """Weights and their names are those of the plain network, compiled or not."""
    environment = {**os.environ, "TORCHINDUCTOR_CACHE_DIR": str(tmp_path), **({"CXX": compiler} if compiler else {})}
    root = Path(__file__).parents[3]
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT], cwd=root, env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr
    *notes, last = done.stdout.splitlines()
    assert float(last.removeprefix("largest difference ")) < 1e-5
    assert [note.startswith("torch.compile fails here (") for note in notes] == ([True] if compiler else [])
