"""One step: what it computes, in parts too, and how it goes on when memory runs out."""

from __future__ import annotations

import contextlib
import copy
import os
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

from unet_edge.device import prefers_channels_last
from unet_edge.losses import make_loss
from unet_edge.model import UNet, UNetConfig
from unet_edge.training import engine as engine_module
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import Engine, NonFiniteLoss
from unet_edge_runtime.errors import TrainingError
from unet_edge_runtime.spec import IGNORE_LABEL

from .test_memory import MPS

CPU = torch.device("cpu")
MEMORY = {"cuda": torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB."), "mps": RuntimeError(MPS)}


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


def test_a_step_is_the_textbooks():
    engine = make_engine(gradient_clipping=0.5)
    model = copy.deepcopy(engine.model)
    optimizer = torch.optim.RMSprop(model.parameters(), lr=1e-3, momentum=0.9)
    for seed in range(3):
        images, labels = batch(seed)
        result = engine.step(images, labels)
        optimizer.zero_grad()
        loss = make_loss("ce+dice")(model(images.to(memory_format=engine.layout)), labels)
        loss.backward()
        nn.utils.clip_grad_norm_(model.parameters(), 0.5)
        optimizer.step()
        assert result.loss == loss.item()
        assert not result.skipped
    for name, value in engine.model.state_dict().items():
        assert torch.equal(value, model.state_dict()[name]), name


@pytest.mark.parametrize("weights", [None, (1.0, 3.0), (0.001, 0.002)])
@pytest.mark.parametrize("parts", [2, 3, 5])
def test_parts_of_a_batch_are_the_batch(parts, weights):
    """Five images of which one does not count at all, in parts of unequal size: batch norm aside, which is frozen."""
    images, labels = batch(0, 5)
    labels[0, :9], labels[1, :, 5:], labels[3] = IGNORE_LABEL, IGNORE_LABEL, IGNORE_LABEL
    whole = make_engine("ce", weights, frozen=True, batch_size=5)
    divided = make_engine("ce", weights, frozen=True, batch_size=5, accumulate=parts)
    wanted, arrived = whole.step(images, labels), divided.step(images, labels)
    assert arrived.loss == pytest.approx(wanted.loss, rel=1e-6)
    for ours, theirs in zip(divided.model.parameters(), whole.model.parameters(), strict=True):
        assert (ours.grad - theirs.grad).norm() <= 2e-6 * theirs.grad.norm()


def test_a_batch_that_does_not_count_teaches_nothing():
    engine = make_engine("ce", accumulate=2)
    images, labels = batch(0)
    assert engine.step(images, torch.full_like(labels, IGNORE_LABEL)).loss == 0
    assert all(not parameter.grad.any() for parameter in engine.model.parameters())


def test_parts_are_computed_one_after_the_other():
    """Memory is saved: never more than a part's images at once, and the sums over processes wait for the last part."""
    waits = []

    class Wrapped(nn.Module):
        def __init__(self, module):
            super().__init__()
            self.module, self.sizes = module, []

        def forward(self, images):
            self.sizes.append(len(images))
            return self.module(images)

        def no_sync(self):
            waits.append(len(self.sizes))
            return contextlib.nullcontext()

    engine = make_engine(accumulate=3, wrap=Wrapped)
    engine.step(*batch(0))
    assert engine.wrapped.sizes == [2, 1, 1]
    assert waits == [0, 1]


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


def test_a_smaller_last_batch_is_divided_no_further_than_into_images():
    engine = make_engine(accumulate=4)
    sizes = []
    engine.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    engine.step(*batch(0, 3))
    engine.step(*batch(1))
    assert sizes == [1] * 7
    assert engine.micro == 4


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


def test_another_error_is_not_taken_for_a_lack_of_memory():
    engine = make_engine()
    error = RuntimeError("the size of tensor a (3) must match the size of tensor b (4)")
    Scarce(engine, "forward", lambda policy, count: False, error)
    with pytest.raises(RuntimeError, match="size of tensor a") as caught:
        engine.step(*batch(0))
    assert caught.value is error


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_a_loss_that_is_no_number_leaves_all_as_it_was(value):
    engine = make_engine()
    engine.step(*batch(0))
    before = copy.deepcopy(everything(engine))
    images, labels = batch(1)
    with pytest.raises(NonFiniteLoss, match=r"^the loss became (nan|inf): [^\n]*--learning-rate[^\n]*$"):
        engine.step(images * value, labels)
    after = everything(engine)
    assert [name for name in before if not torch.equal(before[name], after[name])] == []


def test_auto_decides_once_by_the_first_batch(monkeypatch):
    said = []
    for free, policy in ((1 << 40, "none"), (1 << 10, "all")):
        monkeypatch.setattr(engine_module, "usable_memory", lambda device, free=free: free)
        engine = make_engine(say=said.append, checkpointing="auto")
        engine.step(*batch(0))
        assert engine.state()["checkpointing"] == policy
        monkeypatch.setattr(engine_module, "usable_memory", lambda device: 1 << 20)
        engine.step(*batch(1))
        assert engine.state()["checkpointing"] == policy
    assert len(said) == 1
    assert "checkpointing: all" in said[0]


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


@pytest.mark.parametrize("capability", ["AVX512", "AVX2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_two_runs_are_the_same_bit_for_bit(monkeypatch, capability, precision):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    torch.use_deterministic_algorithms(True)
    try:
        engines = [make_engine(precision=precision, checkpointing=policy) for policy in ("none", "none", "all")]
        assert engines[0].layout == (torch.channels_last if capability == "AVX512" else torch.contiguous_format)
        for engine in engines:
            for seed in range(3):
                engine.step(*batch(seed))
    finally:
        torch.use_deterministic_algorithms(False)
    assert_same(engines[0], engines[1])
    assert_same(engines[0], engines[2])


@pytest.mark.parametrize(
    ("device", "training", "capability", "expected"),
    [
        ("cuda", True, "AVX2", True),
        ("mps", True, "AVX2", False),
        ("cpu", False, "AVX2", True),
        ("cpu", True, "AVX2", False),
        ("cpu", True, "AVX512", True),
    ],
)
def test_the_layout_in_memory(monkeypatch, device, training, capability, expected):
    monkeypatch.setattr(torch.backends.cpu, "get_cpu_capability", lambda: capability)
    assert prefers_channels_last(torch.device(device), training) is expected


def test_among_several_processes_a_lack_of_memory_is_an_error(monkeypatch):
    monkeypatch.setattr(torch.distributed, "is_initialized", lambda: True)
    monkeypatch.setattr(torch.distributed, "get_world_size", lambda: 2)
    monkeypatch.setattr(torch.distributed, "get_rank", lambda: 1)
    engine = make_engine()
    Scarce(engine, "forward", lambda policy, count: False, MEMORY["cuda"])
    with pytest.raises(TrainingError, match=r"^out of memory in process 1 of 2: [^\n]*--accumulate[^\n]*$"):
        engine.step(*batch(0))


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
