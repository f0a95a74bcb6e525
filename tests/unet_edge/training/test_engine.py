"""One step: what it computes, in parts too, and how it decides on checkpointing and layout."""

from __future__ import annotations

import contextlib
import copy

import pytest
import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from unet_edge.device import prefers_channels_last
from unet_edge.losses import make_loss
from unet_edge.training import engine as engine_module
from unet_edge.training.engine import NonFiniteLoss
from unet_edge_runtime.spec import IGNORE_LABEL

from .conftest import assert_same, batch, everything, make_engine


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


def test_a_smaller_last_batch_is_divided_no_further_than_into_images():
    engine = make_engine(accumulate=4)
    sizes = []
    engine.model.register_forward_pre_hook(lambda module, inputs: sizes.append(len(inputs[0])))
    engine.step(*batch(0, 3))
    engine.step(*batch(1))
    assert sizes == [1] * 7
    assert engine.micro == 4


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


class Questions(TorchDispatchMode):
    """Counts what makes a GPU finish before the host goes on."""

    asking = ("_local_scalar_dense", "nonzero")

    def __init__(self):
        super().__init__()
        self.seen = []

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        self.seen += [name] if name in self.asking else []
        return func(*args, **kwargs or {})


@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_a_step_waits_for_its_device_once(precision):
    """For the loss and the gradients' norm together, whose way to the host is none of those that are counted."""
    engine = make_engine(precision=precision, accumulate=2)
    engine.step(*batch(0))
    with Questions() as questions:
        engine.step(*batch(1))
    assert questions.seen == []
    with Questions() as questions:
        float(torch.ones(1))
    assert questions.seen == ["_local_scalar_dense"]
