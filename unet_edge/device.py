"""Which device, and what suits it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_edge_runtime.errors import BackendError

if TYPE_CHECKING:
    import torch

__all__ = ["DEVICES", "is_out_of_memory", "pick_device", "prefers_channels_last"]

DEVICES = ("auto", "cpu", "cuda", "mps")
# What torch says where it raises no class of its own, in small letters: CUDA's driver and MPS, Metal's limit of one
# buffer, cuDNN, cuBLAS, the CPU.
OUT_OF_MEMORY_TEXTS = (
    "out of memory",
    "invalid buffer size",
    "cudnn_status_alloc_failed",
    "cublas_status_alloc_failed",
    "can't allocate memory",
    "unable to find an engine to execute",  # cuDNN without room for any algorithm's workspace
    "unable to find a valid cudnn algorithm",
)


def pick_device(name: str = "auto") -> torch.device:
    """The device of that name; "auto" takes CUDA, then MPS, then the CPU.

    Raises:
        BackendError: the device is not available here.
    """
    import torch

    available = {"cpu": True, "cuda": torch.cuda.is_available(), "mps": torch.backends.mps.is_available()}
    if name == "auto":
        name = next(device for device in ("cuda", "mps", "cpu") if available[device])
    if not available.get(name, False):
        have = ", ".join(device for device, there in available.items() if there)
        raise BackendError(f"device {name} is not available here (available: {have}): leave --device out")
    return torch.device(name)


def prefers_channels_last(device: torch.device, training: bool) -> bool:
    """Whether NHWC memory is the faster layout.

    On CUDA always, on MPS never.
    On a CPU for inference (1.1 to 1.8 times faster). For training by the processor: with AVX-512
    it is 1.6 times faster (0.18 against 0.29 s an image), while with AVX2 alone the gradient of the weights is up
    to 1.9 times slower.
    """
    import torch

    if device.type == "cpu" and training:
        return torch.backends.cpu.get_cpu_capability() == "AVX512"
    return device.type in ("cuda", "cpu")


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an exception says that the device's memory is used up, on CUDA, MPS or the CPU."""
    import torch

    if isinstance(error, (torch.OutOfMemoryError, MemoryError)):
        return True
    text = str(error).lower()
    return isinstance(error, RuntimeError) and any(part in text for part in OUT_OF_MEMORY_TEXTS)
