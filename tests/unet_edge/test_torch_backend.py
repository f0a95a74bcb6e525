from __future__ import annotations

import numpy as np
import pytest
import torch

from tests.gpu import FakeGpu
from unet_edge.checkpoint import save_checkpoint
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.errors import BackendError


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, make_model, make_spec):
    path = tmp_path_factory.mktemp("precision") / "net.pth"
    save_checkpoint(path, make_model(seed=3), make_spec(), {})
    return path


@pytest.fixture
def batch():
    return np.random.default_rng(0).random((1, 3, 32, 48), np.float32)


def test_bf16_rounds_and_says_so(checkpoint, batch):
    exact, rounded = TorchBackend(checkpoint, "cpu"), TorchBackend(checkpoint, "cpu", precision="bf16")
    assert (exact.spec.precision, rounded.spec.precision) == ("fp32", "bf16")
    difference = np.abs(exact.run(batch) - rounded.run(batch)).max()
    magnitude = np.abs(exact.run(batch)).max()
    assert 2**-12 < difference / magnitude < 2**-4  # bf16 has a significand of 8 bits
    assert not torch.is_autocast_enabled("cpu")


@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_what_a_processor_does_not_do(checkpoint, precision):
    with pytest.raises(BackendError, match=f"precision {precision} is not offered on cpu: choose fp32 or bf16"):
        TorchBackend(checkpoint, "cpu", precision=precision)


def test_autocast_of_the_caller_stays_in_force(checkpoint, batch):
    backend = TorchBackend(checkpoint, "cpu")
    with torch.autocast("cpu", torch.bfloat16):
        rounded = backend.run(batch)
    np.testing.assert_array_equal(rounded, TorchBackend(checkpoint, "cpu", precision="bf16").run(batch))


@pytest.mark.parametrize(("in_memory", "allowed"), [(False, False), (True, True)])
def test_fp32_on_a_gpu_is_not_tf32(checkpoint, batch, monkeypatch, in_memory, allowed):
    """As torch has it by default; only while training, where speed counts, it may stay."""
    backend = TorchBackend(checkpoint, "cpu")
    if in_memory:
        backend = TorchBackend.from_model(backend.model, backend.spec)
    seen = []
    backend.model.register_forward_hook(lambda *_: seen.append(torch.backends.cudnn.allow_tf32))
    monkeypatch.setattr(backend, "device", FakeGpu("cpu"))
    backend.run(batch)
    assert seen == [allowed]
    assert torch.backends.cudnn.allow_tf32
