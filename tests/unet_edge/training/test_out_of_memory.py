"""How a run goes on when memory runs out, and how it ends where nothing helps."""

from __future__ import annotations

import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from unet_edge.training import trainer as trainer_module
from unet_edge.training.start import DataConfig, train
from unet_edge_runtime.errors import TrainingError

from .conftest import QUICK, SMALL, assert_same, batch, everything, make_engine
from .test_memory import MPS

MEMORY = {"cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "mps": RuntimeError(MPS)}


def hook(tensor, function):
    """Call it with the tensor's gradient; nothing comes back, so that neither tensor nor gradient changes."""
    tensor.register_hook(function)


class Scarce:
    """Raises `error` whenever a computation is beyond what the memory of the time holds.

    Args:
        engine: whose network is watched.
        place: "forward", "again" (a block's second computation) or "backward".
        holds: (policy, images) -> whether such a computation fits.
        error: what the device says.
    """

    def __init__(self, engine, place, holds, error):
        self.engine, self.holds, self.error, self.failures, self.on = engine, holds, error, 0, True
        model, self.inside = engine.model, False
        if place == "forward":
            model.up1.register_forward_pre_hook(lambda module, inputs: self.check(len(inputs[0])))
        elif place == "again":
            model.outc.register_forward_pre_hook(lambda module, inputs: hook(inputs[0], self.arrived))
            model.up1.conv.register_forward_pre_hook(lambda module, inputs: self.again(len(inputs[0])))
        else:
            late = model.down1.maxpool_conv[0]
            late.register_forward_hook(
                lambda module, inputs, output: hook(output, lambda gradient: self.check(len(gradient)))
            )

    def arrived(self, gradient):
        self.inside = True

    def again(self, count):
        if self.inside:
            self.inside = False
            self.check(count)

    def check(self, count):
        if self.on and not self.holds(self.engine.model.checkpointing, count):
            self.failures += 1
            raise self.error


@pytest.mark.parametrize("device", MEMORY)
@pytest.mark.parametrize("place", ["forward", "backward"])
def test_without_memory_a_run_is_the_one_that_began_with_checkpointing(place, device):
    said = []
    engine, wanted = make_engine(say=said.append), make_engine(checkpointing="all")
    scarce = Scarce(engine, place, lambda policy, count: policy == "all", MEMORY[device])
    for seed in range(3):
        assert engine.step(*batch(seed)).loss == wanted.step(*batch(seed)).loss
    assert scarce.failures == 1
    assert engine.state()["checkpointing"] == "all"
    assert len(said) == 1
    assert "out of memory" in said[0]
    assert_same(engine, wanted)


@pytest.mark.parametrize("place", ["forward", "again", "backward"])
def test_without_memory_for_two_images_a_run_is_the_one_that_began_with_one_at_a_time(place):
    said = []
    # Something is computed again only with checkpointing.
    engine = make_engine(say=said.append, checkpointing="all" if place == "again" else "none")
    wanted = make_engine(checkpointing="all", accumulate=4)
    scarce = Scarce(engine, place, lambda policy, count: policy == "all" and count == 1, MEMORY["cuda"])
    for seed in range(3):
        assert engine.step(*batch(seed)).loss == wanted.step(*batch(seed)).loss
    assert scarce.failures == len(said) == (2 if place == "again" else 3)
    assert ["in 2 parts" in said[-2], "in 4 parts" in said[-1]] == [True, True]
    assert engine.state()["micro"] == 4
    assert_same(engine, wanted)


@pytest.mark.parametrize("place", ["forward", "backward"])
def test_steps_before_the_lack_of_memory_are_kept(place):
    """Also the random state: this network draws a number in each forward pass."""

    def noisy(engine):
        engine.model.outc.register_forward_hook(lambda module, inputs, output: output + torch.rand(()))
        return engine

    engine, wanted = noisy(make_engine(precision="bf16")), noisy(make_engine(precision="bf16"))
    scarce = Scarce(engine, place, lambda policy, count: policy == "all" and count <= 2, MEMORY["cuda"])
    torch.manual_seed(7)
    for seed in range(4):
        scarce.on = seed >= 2
        engine.step(*batch(seed))
    random = torch.get_rng_state()
    torch.manual_seed(7)
    for seed in range(4):
        if seed == 2:
            wanted.restore({**wanted.state(), "checkpointing": "all", "micro": 2})
        wanted.step(*batch(seed))
    assert torch.equal(random, torch.get_rng_state())
    assert_same(engine, wanted)


def test_a_restored_engine_goes_on_in_the_same_way():
    engine = make_engine(checkpointing="auto")
    Scarce(engine, "forward", lambda policy, count: policy == "all" and count <= 2, MEMORY["cuda"])
    engine.step(*batch(0))
    again = make_engine(checkpointing="auto")
    again.restore(copy.deepcopy(engine.state()))
    assert again.state() == engine.state()
    again.model.load_state_dict(engine.model.state_dict())
    again.optimizer.load_state_dict(copy.deepcopy(engine.optimizer.state_dict()))
    again.step(*batch(1))
    engine.step(*batch(1))
    assert_same(again, engine)


@pytest.mark.parametrize("device", MEMORY)
def test_without_memory_for_one_image_a_run_ends_in_one_line(device):
    engine = make_engine()
    before = copy.deepcopy(everything(engine))
    Scarce(engine, "backward", lambda policy, count: False, MEMORY[device])
    with pytest.raises(TrainingError, match=r"^out of memory on cpu even with [^\n]*--scale[^\n]*$"):
        engine.step(*batch(0))
    assert all(torch.equal(value, before[name]) for name, value in engine.model.named_parameters())


def test_without_memory_for_the_update_a_run_ends_in_one_line(monkeypatch):
    engine = make_engine()

    def step(*args, **kwargs):
        raise MEMORY["cuda"]

    monkeypatch.setattr(engine.optimizer, "step", step)
    with pytest.raises(TrainingError, match=r"^out of memory while the weights were updated[^\n]*--optimizer sgd$"):
        engine.step(*batch(0))


def test_out_of_memory_that_nothing_cures_is_said_in_one_line(tmp_path, pairs_folder, monkeypatch):
    def exhausted(*unused):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer_module, "make_loss", lambda *unused: exhausted)
    with pytest.raises(TrainingError, match=r"^out of memory.*--scale.*\(epoch 1, step 1; .*last\.pth") as caught:
        train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "\n" not in str(caught.value)


def test_another_error_is_not_taken_for_a_lack_of_memory():
    engine = make_engine()
    error = RuntimeError("the size of tensor a (3) must match the size of tensor b (4)")
    Scarce(engine, "forward", lambda policy, count: False, error)
    with pytest.raises(RuntimeError, match="size of tensor a") as caught:
        engine.step(*batch(0))
    assert caught.value is error


def test_among_several_processes_a_lack_of_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    engine = make_engine()
    Scarce(engine, "forward", lambda policy, count: False, MEMORY["cuda"])
    with pytest.raises(TrainingError, match=r"^out of memory in process 1 of 2: [^\n]*--accumulate[^\n]*$"):
        engine.step(*batch(0))


PEERS = """
import torch
from torch.nn.parallel import DistributedDataParallel
from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import Engine
from unet_edge_runtime.errors import TrainingError
torch.distributed.init_process_group("gloo")
rank = torch.distributed.get_rank()
torch.manual_seed(0)
model = UNet(UNetConfig(base_channels=2, depth=1)).train()
optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
config = TrainConfig(batch_size=2, accumulate=2)
engine = Engine(model, optimizer, make_loss("ce"), config, torch.device("cpu"), wrap=DistributedDataParallel)
images, labels = torch.rand(2, 3, 8, 8), torch.randint(0, 2, (2, 8, 8))
engine.step(images, labels)
print("first step done", flush=True)

def fail(gradient):
    raise torch.OutOfMemoryError("CUDA out of memory.")

if rank == 1:
    model.down1.register_forward_hook(lambda module, inputs, output: output.register_hook(fail) and None)
try:
    engine.step(images, labels)
except TrainingError as error:
    raise SystemExit(str(error))
"""


@pytest.mark.slow
def test_a_lack_of_memory_in_one_process_ends_all():
    with socket.socket() as server:
        server.bind(("localhost", 0))
        port = str(server.getsockname()[1])
    common = {**os.environ, "MASTER_ADDR": "localhost", "MASTER_PORT": port, "WORLD_SIZE": "2"}
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", PEERS],
            cwd=Path(__file__).parents[3],
            env={**common, "RANK": str(rank)},
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(2)
    ]
    try:
        said = [process.communicate(timeout=200) for process in processes]
    finally:
        for process in processes:
            process.kill()
    assert [out for out, _ in said] == ["first step done\n"] * 2, said
    assert all(process.returncode for process in processes)
    assert said[1][1].splitlines()[-1].startswith("out of memory in process 1 of 2: ")
