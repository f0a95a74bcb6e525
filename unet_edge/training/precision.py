"""The number format of a training step, by device."""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass

import torch

from unet_edge_runtime.errors import BackendError, InputError

from .config import PRECISIONS

__all__ = ["Precision", "resolve"]

DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}
SCALER_ON_MPS = (2, 8)  # the first torch whose GradScaler runs there: github.com/pytorch/pytorch/pull/150255
BF16_ON_MPS = (14, 0)  # macOS


@dataclass(frozen=True)
class Precision:
    """How a step computes.

    Attributes:
        name: "fp32", "bf16" or "fp16".
        device_type: "cpu", "cuda" or "mps".
        scaler: multiplies the loss so that fp16 gradients do not vanish (Micikevicius et al., 2018,
            arXiv:1710.03740); switched off for the other two.
        note: what the user should know about this choice here, or "".
    """

    name: str
    device_type: str
    scaler: torch.amp.GradScaler
    note: str = ""

    def autocast(self) -> AbstractContextManager[object]:
        """The context in which the forward pass runs; the loss stays outside, in fp32."""
        return nullcontext() if self.name == "fp32" else torch.autocast(self.device_type, DTYPES[self.name])

    def clip(self, optimizer: torch.optim.Optimizer, parameters: Iterable[torch.Tensor], limit: float) -> torch.Tensor:
        """Bring gradients that `scaler` scaled to their own size, and clip them.

        Args:
            optimizer: of the parameters.
            parameters: all that have gradients.
            limit: largest norm of all gradients together.

        Returns:
            The norm before clipping, a scalar on the gradients' device; not finite where an element is not.
        """
        self.scaler.unscale_(optimizer)
        return torch.nn.utils.clip_grad_norm_(parameters, limit)

    def change(self, optimizer: torch.optim.Optimizer, finite: bool) -> None:
        """After `clip`: change the weights if the norm was finite; the scale is halved where an element was not."""
        if finite:
            optimizer.step()  # the scaler's own step would ask the device once more
        self.scaler.update()

    @property
    def bytes_per_value(self) -> int:
        """Size of most activations that autograd keeps, on average."""
        if self.device_type == "mps" and self.name != "fp32":
            return 5  # batch norm computes in fp32 there, so that an activation is kept in both
        return 4 if self.name == "fp32" else 2


def resolve(name: str, device: torch.device) -> Precision:
    """The precision of that name on a device.

    "auto" takes bf16 where the device computes in it, fp16 on a CUDA device that does not, else fp32.

    Args:
        name: one of `config.PRECISIONS`.
        device: where the network is trained.

    Raises:
        InputError: no such precision.
        BackendError: the device, or this version of torch, cannot train in it.
    """
    if name not in PRECISIONS:
        raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {name!r}")
    if name == "auto":
        name, note = _automatic(device)
    else:
        note = _checked(name, device)
    return Precision(name, device.type, torch.amp.GradScaler(device.type, enabled=name == "fp16"), note)


def _automatic(device: torch.device) -> tuple[str, str]:
    if _computes_bf16(device):
        return "bf16", ""
    if device.type == "cuda":
        return "fp16", ""
    what = "this processor" if device.type == "cpu" else "this macOS"
    return "fp32", f"precision fp32: {what} does not compute in bf16"


def _checked(name: str, device: torch.device) -> str:
    """What speaks against an explicit choice but does not forbid it."""
    advice = "leave --precision at auto, or take fp32"
    if name == "bf16" and not _computes_bf16(device):
        if device.type == "mps":
            raise BackendError(f"bf16 on mps needs macOS {BF16_ON_MPS[0]}: {advice} or fp16")
        if device.type == "cuda" and not torch.cuda.is_bf16_supported():
            raise BackendError(f"this CUDA device has no bf16: {advice} or fp16")
        return "bf16 is emulated here and slower than fp32 (14 times on a CPU with AVX2 only)"
    if name == "fp16" and device.type == "mps" and _torch_version() < SCALER_ON_MPS:
        needed = ".".join(map(str, SCALER_ON_MPS))
        raise BackendError(f"fp16 on mps needs torch {needed} (here {torch.__version__}): {advice} or bf16")
    if name == "fp16" and device.type == "cpu" and not _cpu_has("avx512_fp16", "amx_fp16", "fp16_arith"):
        return "fp16 is emulated on this processor and slower than fp32"
    return ""


def _computes_bf16(device: torch.device) -> bool:
    """Whether the device has instructions for it, not just conversions."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    if device.type == "mps":
        return torch.backends.mps.is_macos_or_newer(*BF16_ON_MPS)
    return _cpu_has("avx512_bf16", "amx_bf16", "bf16")


def _cpu_has(*features: str) -> bool:
    """Whether the processor has one of them, by the names of `torch.cpu.get_capabilities`."""
    if hasattr(torch.cpu, "get_capabilities"):
        have = torch.cpu.get_capabilities()
        return any(have.get(feature, False) for feature in features)
    asks = {"avx512_bf16": "_is_avx512_bf16_supported", "amx_bf16": "_is_amx_tile_supported"}  # an older torch
    return any(getattr(torch.cpu, asks[feature], bool)() for feature in features if feature in asks)


def _torch_version() -> tuple[int, int]:
    major, minor = torch.__version__.split(".")[:2]
    return int(major), int(minor)
