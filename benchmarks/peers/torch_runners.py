"""PyTorch, as others run it: our own backend is the eager one in channels_last memory."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

from unet_edge_runtime.backend import Backend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CompiledRunner", "EagerRunner"]


class EagerRunner(Backend):
    """A checkpoint, eager, in PyTorch's default (NCHW) memory.

    Args:
        path: the checkpoint.
        threads: threads inside one operation.
    """

    name: ClassVar[str] = "torch-nchw"

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        from unet_edge.torch_backend import TorchBackend

        self.inner = TorchBackend(path, device="cpu", threads=threads)
        self.path, self.spec = self.inner.path, self.inner.spec
        self._prepare()

    def _prepare(self) -> None:
        import torch

        self.inner.layout = torch.contiguous_format
        self.inner.model.to(memory_format=torch.contiguous_format)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        return self.inner._run(batch)


class CompiledRunner(EagerRunner):
    """A checkpoint through torch.compile (inductor), channels_last, weights frozen: the first image compiles."""

    name: ClassVar[str] = "torch-compiled"

    def _prepare(self) -> None:
        import torch
        import torch._inductor.config as inductor

        inductor.freezing = True
        self.inner.model = torch.compile(self.inner.model)
