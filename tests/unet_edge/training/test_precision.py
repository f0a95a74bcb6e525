"""Number formats by device, and steps whose gradients overflow."""

from __future__ import annotations

import copy

import pytest
import torch
from torch.nn.functional import cross_entropy

from unet_edge.model import UNet, UNetConfig
from unet_edge.training.config import TrainConfig
from unet_edge.training.engine import MOST_SKIPPED, Engine
from unet_edge.training.precision import Precision, resolve
from unet_edge_runtime.errors import BackendError, InputError, TrainingError

CPU, CUDA, MPS = (torch.device(name) for name in ("cpu", "cuda", "mps"))
# torch switches its scaler off, and says so, where there is no CUDA.
without_cuda = pytest.mark.filterwarnings("ignore:torch.cuda.amp.GradScaler is enabled:UserWarning")


@pytest.fixture
def processor(monkeypatch):
    """A function that gives the CPU these features and no others."""

    def features(*names):
        monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: dict.fromkeys(names, True), raising=False)

    return features


@pytest.fixture
def graphics(monkeypatch):
    """A function that gives the CUDA device bf16: computed, emulated or not at all."""

    def bf16(kind):
        answer = {"computed": (True, True), "emulated": (True, False), "none": (False, False)}[kind]
        monkeypatch.setattr(
            torch.cuda, "is_bf16_supported", lambda including_emulation=True: answer[not including_emulation]
        )

    return bf16


@pytest.fixture
def macos(monkeypatch):
    """A function that sets the version of macOS."""

    def version(*installed):
        monkeypatch.setattr(torch.backends.mps, "is_macos_or_newer", lambda *asked: installed >= asked)

    return version


@pytest.mark.parametrize("features", [("avx512_bf16",), ("amx_bf16",), ("bf16",)])
def test_a_processor_that_computes_in_bf16_trains_in_it(processor, features):
    processor("avx2", *features)
    chosen = resolve("auto", CPU)
    assert (chosen.name, chosen.note, chosen.scaler.is_enabled()) == ("bf16", "", False)
    assert resolve("bf16", CPU).note == ""


def test_another_processor_stays_with_fp32_and_says_why(processor):
    processor("avx2")
    assert resolve("auto", CPU).name == "fp32"
    assert "does not compute in bf16" in resolve("auto", CPU).note
    assert "slower" in resolve("bf16", CPU).note


def test_an_older_torch_is_asked_in_its_own_way(monkeypatch):
    monkeypatch.delattr(torch.cpu, "get_capabilities", raising=False)
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: True, raising=False)
    assert resolve("auto", CPU).name == "bf16"
    monkeypatch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: False)
    monkeypatch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: False)
    assert resolve("auto", CPU).name == "fp32"


def test_fp16_on_a_processor_without_it_is_slow_and_scaled(processor):
    processor("avx512_bf16")
    chosen = resolve("fp16", CPU)
    assert "slower" in chosen.note
    assert chosen.scaler.is_enabled()


@without_cuda
def test_cuda_takes_bf16_or_else_fp16(graphics):
    graphics("computed")
    assert resolve("auto", CUDA).name == "bf16"
    graphics("emulated")
    assert resolve("auto", CUDA).name == "fp16"
    assert "slower" in resolve("bf16", CUDA).note
    graphics("none")
    assert resolve("auto", CUDA).name == "fp16"
    with pytest.raises(BackendError, match=r"^this CUDA device has no bf16: [^\n]*fp16$"):
        resolve("bf16", CUDA)


def test_mps_takes_bf16_from_macos_14_on(macos):
    macos(14, 1)
    assert resolve("auto", MPS).name == "bf16"
    macos(13, 3)
    assert resolve("auto", MPS).name == "fp32"
    with pytest.raises(BackendError, match="bf16 on mps needs macOS 14"):
        resolve("bf16", MPS)


def test_fp16_on_mps_needs_a_torch_whose_scaler_runs_there(monkeypatch):
    monkeypatch.setattr(torch, "__version__", "2.8.0")
    assert resolve("fp16", MPS).scaler.is_enabled()
    monkeypatch.setattr(torch, "__version__", "2.7.1+cpu")
    with pytest.raises(BackendError, match=r"^fp16 on mps needs torch 2\.8 \(here 2\.7\.1\+cpu\): [^\n]*$"):
        resolve("fp16", MPS)


def test_another_name():
    with pytest.raises(InputError, match=r"precision must be one of .*fp16.*, not 'int8'"):
        resolve("int8", CPU)


def make_engine(precision, loss_fn=None, accumulate=1):
    torch.manual_seed(0)
    model = UNet(UNetConfig(base_channels=4, depth=2)).train()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    config = TrainConfig(batch_size=2, precision=precision, accumulate=accumulate)
    return Engine(model, optimizer, loss_fn or plain_loss, config, CPU)


def plain_loss(logits, labels):
    return cross_entropy(logits, labels.long())


def batch(count=2):
    generator = torch.Generator().manual_seed(1)
    labels = torch.randint(0, 2, (count, 16, 24), generator=generator, dtype=torch.uint8)
    return torch.rand(count, 3, 16, 24, generator=generator) + labels[:, None], labels


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_half_precision_learns_nearly_what_fp32_learns(precision):
    """The network computes in half precision, loss and weights stay in fp32."""
    seen = []

    def loss_fn(logits, labels):
        seen.append(logits.dtype)
        return plain_loss(logits, labels)

    half, full = make_engine(precision, loss_fn), make_engine("fp32")
    inner = []
    half.model.inc.double_conv[0].register_forward_hook(lambda module, inputs, output: inner.append(output.dtype))
    for _ in range(20):
        ours, theirs = half.step(*batch()), full.step(*batch())
        assert not ours.skipped
    assert ours.loss == pytest.approx(theirs.loss, rel=0.05)
    assert ours.loss < 0.5  # it learns: two equal classes begin at 0.69 or above
    assert set(seen) == {torch.float32}
    assert set(inner) == {{"bf16": torch.bfloat16, "fp16": torch.float16}[precision]}
    assert {parameter.dtype for parameter in half.model.parameters()} == {torch.float32}


def test_gradients_that_overflow_fp16_are_left_out():
    """2**16 times a loss of thousands is beyond fp16's 65504; the scale falls until they fit."""
    engine = make_engine("fp16", lambda logits, labels: 1e4 * plain_loss(logits, labels), accumulate=2)
    before, momenta = copy.deepcopy(dict(engine.model.named_parameters())), engine.optimizer.state_dict()["state"]
    result = engine.step(*batch())
    assert result.skipped
    assert engine.overflows == 1
    assert engine.precision.scaler.get_scale() == 2**15
    assert all(torch.equal(value, before[name]) for name, value in engine.model.named_parameters())
    assert engine.optimizer.state_dict()["state"] == momenta == {}
    results = [engine.step(*batch()) for _ in range(20)]
    skipped = sum(result.skipped for result in results)
    assert not results[-1].skipped
    assert engine.overflows == 1 + skipped
    assert engine.precision.scaler.get_scale() == 2.0 ** (16 - engine.overflows)
    assert any(not torch.equal(value, before[name]) for name, value in engine.model.named_parameters())


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_gradients_that_are_no_numbers_never_reach_the_weights(precision):
    def loss_fn(logits, labels):
        logits.register_hook(lambda gradient: gradient * float("inf"))
        return plain_loss(logits, labels)

    engine = make_engine(precision, loss_fn)
    before = copy.deepcopy(dict(engine.model.named_parameters()))
    assert engine.step(*batch()).skipped
    assert all(torch.equal(value, before[name]) for name, value in engine.model.named_parameters())
    for _ in range(MOST_SKIPPED - 2):
        engine.step(*batch())
    with pytest.raises(TrainingError, match=rf"^the gradients were not finite in {MOST_SKIPPED} steps in a row[^\n]*$"):
        engine.step(*batch())
    assert engine.overflows == MOST_SKIPPED


def test_a_restored_engine_scales_as_before():
    engine = make_engine("fp16", lambda logits, labels: 1e4 * plain_loss(logits, labels))
    for _ in range(3):
        engine.step(*batch())
    again = make_engine("fp16")
    again.restore(copy.deepcopy(engine.state()))
    assert again.overflows == engine.overflows > 0
    again.step(*batch())
    assert again.precision.scaler.get_scale() == engine.precision.scaler.get_scale()
    make_engine("fp32").restore(engine.state())  # a run that goes on without a scaler does not miss it


@pytest.mark.parametrize(("device", "expected"), [("cpu", 2), ("cuda", 2), ("mps", 5)])
def test_what_half_precision_keeps(device, expected):
    """On MPS autocast leaves batch norm in fp32 and keeps its input, its output and the next layer's rounded input."""
    scaler = torch.amp.GradScaler("cpu", enabled=False)
    assert Precision("bf16", device, scaler).bytes_per_value == expected
    assert Precision("fp32", device, scaler).bytes_per_value == 4
