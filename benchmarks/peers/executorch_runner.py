"""ExecuTorch with XNNPACK on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from peer_backend import PeerBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["ExecuTorchRunner"]


class ExecuTorchRunner(PeerBackend):
    """Reads the .pte file whose graph was handed to XNNPACK."""

    name: ClassVar[str] = "executorch"

    def _open(self, threads: int) -> None:
        import torch
        from executorch.extension.pybindings import portable_lib

        self.torch = torch
        # Python has no public setting; XNNPACK keeps the pool that it meets when the model is loaded.
        portable_lib._unsafe_reset_threadpool(threads)
        self.module = portable_lib._load_for_executorch(os.fspath(self.path))

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        # Its memory plan owns the output, which the next image overwrites.
        return self.module.forward([self.torch.from_numpy(batch)])[0].numpy().copy()
