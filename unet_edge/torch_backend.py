"""Checkpoints through PyTorch."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import BackendError, OutOfMemoryError

from .checkpoint import read_checkpoint
from .device import is_out_of_memory, pick_device, prefers_channels_last
from .model import UNet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unet_edge_runtime.spec import ModelSpec

__all__ = ["TorchBackend"]

_AUTOCAST = {"bf16": torch.bfloat16, "fp16": torch.float16}


class TorchBackend(Backend):
    """A checkpoint, run eagerly, in fp32 unless told otherwise.

    Args:
        path: a checkpoint of unet-edge or of milesial/Pytorch-UNet.
        device: auto, cpu, cuda or mps.
        scale: image scale of a checkpoint that does not know its own.
        threads: threads inside one operation, for the whole process; torch's choice by default.
        precision: fp32, or bf16 and (on a GPU) fp16 through autocast: weights stay fp32, convolutions do not.

    Raises:
        ModelFileError: as `read_checkpoint`.
        BackendError: the device is not available, or not in this precision.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self,
        path: Path | str,
        device: str = "auto",
        scale: float | None = None,
        threads: int | None = None,
        precision: str = "fp32",
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        checkpoint = read_checkpoint(path, scale)
        self.path, self.spec, self.device = Path(path), checkpoint.spec, pick_device(device)
        self.precision = _checked(precision, self.device)
        if self.precision != "fp32":
            self.spec = self.spec.replace(precision=self.precision)
        self.layout = torch.contiguous_format
        self.allow_tf32 = False
        if prefers_channels_last(self.device, training=False):
            self.layout = torch.channels_last
        self.model = checkpoint.build().to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]

    @classmethod
    def from_model(cls, model: UNet, spec: ModelSpec, device: torch.device | None = None) -> TorchBackend:
        """Wrap a network in memory and on its device, which stays as it is, memory layout included.

        On a GPU its convolutions may round to TF32, torch's default: while training, speed counts for more.
        """
        backend = cls.__new__(cls)
        backend.path, backend.spec = Path("the model in memory"), spec
        backend.model, backend.device = model, device or torch.device("cpu")
        backend.precision, backend.allow_tf32 = "fp32", True
        # Training on a CPU is much slower in the layout that is faster for inference.
        backend.layout = torch.preserve_format
        return backend

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode(), self._autocast(), self._convolutions():
                x = torch.from_numpy(batch).to(self.device, memory_format=self.layout)
                result: NDArray[np.generic] = self.model(x).float().cpu().contiguous().numpy()
        except RuntimeError as error:
            kind = OutOfMemoryError if is_out_of_memory(error) else BackendError
            raise kind(f"{self.path}: PyTorch failed on {self.device} ({str(error).splitlines()[0]})") from None
        finally:
            self.model.train(was_training)
        return result

    def _autocast(self) -> contextlib.AbstractContextManager[object]:
        # In fp32 whatever the caller has chosen stays in force.
        dtype = _AUTOCAST.get(self.precision)
        return torch.autocast(self.device.type, dtype) if dtype else contextlib.nullcontext()

    def _convolutions(self) -> contextlib.AbstractContextManager[object]:
        """In the precision that is promised."""
        rounds = self.allow_tf32 or self.device.type != "cuda"
        return contextlib.nullcontext() if rounds else _without_tf32()


@contextlib.contextmanager
def _without_tf32() -> Iterator[None]:
    """An NVIDIA GPU rounds what fp32 convolutions take to TF32's 10 bits unless it is told not to.

    Logits are then a hundred times as far from ONNX Runtime's as fp32 explains.
    Source: https://docs.pytorch.org/docs/stable/notes/cuda.html#tensorfloat-32-tf32-on-ampere-and-later-devices
    """
    before = torch.backends.cudnn.allow_tf32
    torch.backends.cudnn.allow_tf32 = False
    try:
        yield
    finally:
        torch.backends.cudnn.allow_tf32 = before


def _checked(precision: str, device: torch.device) -> str:
    # fp16 on a processor is emulated, and overflows for nothing.
    possible = ["fp32", "bf16"] if device.type == "cpu" else ["fp32", *_AUTOCAST]
    if precision not in possible:
        raise BackendError(f"precision {precision} is not offered on {device.type}: choose {' or '.join(possible)}")
    return precision
