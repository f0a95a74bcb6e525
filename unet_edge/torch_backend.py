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
        self._open(checkpoint.build(), checkpoint.spec, pick_device(device), Path(path))

    @classmethod
    def from_model(cls, model: UNet, spec: ModelSpec, device: torch.device | None = None) -> TorchBackend:
        """Wrap a network that is already in memory; it is not copied, and runs in evaluation mode."""
        backend = cls.__new__(cls)
        backend._open(model, spec, device or torch.device("cpu"), Path("the model in memory"))
        return backend

    def _open(self, model: UNet, spec: ModelSpec, device: torch.device, path: Path) -> None:
        self.path, self.spec, self.device = path, spec, device
        self.model = model.to(device)
        if prefers_channels_last(device, training=False):
            self.model = self.model.to(memory_format=torch.channels_last)  # type: ignore[call-overload]

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        was_training = self.model.training
        self.model.eval()
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch).to(self.device)
                if prefers_channels_last(self.device, training=False):
                    x = x.contiguous(memory_format=torch.channels_last)
                result: NDArray[np.generic] = self.model(x).float().cpu().contiguous().numpy()
        except RuntimeError as error:
            raise BackendError(f"{self.path}: PyTorch failed on {self.device} ({str(error).splitlines()[0]})") from None
        finally:
            self.model.train(was_training)
        return result
