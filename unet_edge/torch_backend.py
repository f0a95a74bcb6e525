"""Checkpoints through PyTorch."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import torch

from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import BackendError

from .checkpoint import read_checkpoint
from .device import pick_device, prefers_channels_last
from .model import UNet

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unet_edge_runtime.spec import ModelSpec

__all__ = ["TorchBackend"]


class TorchBackend(Backend):
    """A checkpoint, run eagerly in fp32.

    Args:
        path: a checkpoint of unet-edge or of milesial/Pytorch-UNet.
        device: auto, cpu, cuda or mps.
        scale: image scale of a checkpoint that does not know its own.
        threads: threads inside one operation, for the whole process; torch's choice by default.

    Raises:
        ModelFileError: as `read_checkpoint`.
        BackendError: the device is not available.
    """

    name: ClassVar[str] = "torch"

    def __init__(
        self, path: Path | str, device: str = "auto", scale: float | None = None, threads: int | None = None
    ) -> None:
        if threads:
            torch.set_num_threads(threads)
        checkpoint = read_checkpoint(path, scale)
        self.path, self.spec, self.device = Path(path), checkpoint.spec, pick_device(device)
        self.layout = torch.contiguous_format
        if prefers_channels_last(self.device, training=False):
            self.layout = torch.channels_last
        self.model = checkpoint.build().to(self.device).to(memory_format=self.layout)  # type: ignore[call-overload]

    @classmethod
    def from_model(cls, model: UNet, spec: ModelSpec, device: torch.device | None = None) -> TorchBackend:
        """Wrap a network in memory and on its device, which stays as it is, memory layout included."""
        backend = cls.__new__(cls)
        backend.path, backend.spec = Path("the model in memory"), spec
        backend.model, backend.device = model, device or torch.device("cpu")
        # Training on a CPU is much slower in the layout that is faster for inference.
        backend.layout = torch.preserve_format
        return backend

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(self.device, memory_format=self.layout)
                result: NDArray[np.generic] = self.model(x).float().cpu().contiguous().numpy()
        except RuntimeError as error:
            raise BackendError(f"{self.path}: PyTorch failed on {self.device} ({str(error).splitlines()[0]})") from None
        finally:
            self.model.train(was_training)
        return result
