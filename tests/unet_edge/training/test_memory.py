"""What a step needs, what a device has, and how it says that it has no more."""

from __future__ import annotations

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from unet_edge.data import resources
from unet_edge.device import is_out_of_memory
from unet_edge.losses import make_loss
from unet_edge.model import CHECKPOINTING, UNet, UNetConfig
from unet_edge.training.memory import (
    SHARES,
    Snapshot,
    fitting_policy,
    step_bytes,
    usable_memory,
)

MPS = (
    "MPS backend out of memory (MPS allocated: 5.56 GB, other allocations: 1.10 GB, max allowed: 6.80 GB). Tried to "
    "allocate 768.00 MB on private pool. Use PYTORCH_MPS_HIGH_WATERMARK_RATIO=0.0 to disable upper limit for memory "
    "allocations (may cause system failure)."
)
CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB."), True),
        (torch.cuda.OutOfMemoryError(), True),
        (RuntimeError(MPS), True),
        (RuntimeError("Invalid buffer size: 9.75 GB"), True),
        (RuntimeError("CUDA error: out of memory"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_ALLOC_FAILED"), True),
        (MemoryError(), True),
        (RuntimeError("expected a tensor of 3 channels"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_how_devices_say_it(error, expected):
    assert is_out_of_memory(error) is expected


def test_how_the_cpu_says_it():
    with pytest.raises(RuntimeError) as caught:
        torch.empty(10**15)
    assert is_out_of_memory(caught.value)


def allocated(config, policy, dtype, loss):
    """The most that torch's allocator held at once in a step, with the optimizer's first values."""
    torch.manual_seed(0)
    model = UNet(config, policy).train()
    optimizer = torch.optim.AdamW(model.parameters())
    images = torch.rand(2, 3, 64, 96)
    labels = torch.randint(0, max(2, config.classes), (2, 64, 96), dtype=torch.uint8)
    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as recorded:
        with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            logits = model(images)
        make_loss(loss)(logits, labels).backward()
        optimizer.step()
    events = [event for event in recorded.profiler.kineto_results.events() if event.name() == "[memory]"]
    now = most = 0
    for event in sorted(events, key=lambda event: event.start_ns()):
        now += event.nbytes()
        most = max(most, now)
    return most


@pytest.mark.parametrize("policy", CHECKPOINTING)
@pytest.mark.parametrize(
    ("up", "classes", "dtype", "loss"),
    [
        ("bilinear", 2, torch.float32, "ce+dice"),
        ("transposed", 1, torch.bfloat16, "ce+dice"),
        ("bilinear", 3, torch.bfloat16, "ce+lovasz"),
    ],
)
def test_the_estimate_is_above_what_is_allocated_and_not_far(policy, up, classes, dtype, loss):
    config = UNetConfig(classes=classes, base_channels=8, depth=3, up=up)
    estimate = step_bytes(config, (2, 3, 64, 96), policy, dtype.itemsize)
    assert 1 <= estimate / allocated(config, policy, dtype, loss) < 2.2


def test_auto_keeps_the_fastest_policy_that_fits():
    config, shape = UNetConfig(base_channels=16), (4, 3, 320, 480)
    needs = [step_bytes(config, shape, policy) for policy in CHECKPOINTING]
    assert needs == sorted(needs, reverse=True)
    for policy, need in zip(CHECKPOINTING, needs, strict=True):
        assert fitting_policy(config, shape, 4, need) == policy
    assert fitting_policy(config, shape, 4, needs[-1] - 1) == "all"
    assert fitting_policy(config, shape, 2, needs[0] - 1) == "none"


def test_the_cpus_memory_is_shared_by_the_processes_of_a_machine(monkeypatch):
    monkeypatch.setattr(resources, "free_memory", lambda: 12 << 30)
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    assert usable_memory(CPU) == int((12 << 30) * SHARES["cpu"])
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "3")
    assert usable_memory(CPU) == int((4 << 30) * SHARES["cpu"])


def test_a_gpus_own_cache_counts_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (500, 10000))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 4000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 3500)
    assert usable_memory(torch.device("cuda")) == 1000 * SHARES["cuda"]


def test_a_snapshot_brings_statistics_and_random_state_back():
    model = UNet(UNetConfig(base_channels=4, depth=2)).train()
    before, random = {name: value.clone() for name, value in model.state_dict().items()}, torch.get_rng_state()
    snapshot = Snapshot(model, CPU)
    model(torch.rand(2, 3, 16, 16))
    assert not torch.equal(model.inc.double_conv[1].running_mean, before["inc.double_conv.1.running_mean"])
    snapshot.put_back()
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert torch.equal(torch.get_rng_state(), random)
