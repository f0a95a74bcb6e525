"""MNN on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from peer_backend import PeerBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["MNNRunner"]


class MNNRunner(PeerBackend):
    """Reads the file that mnnconvert made; precision "high", which is fp32, and its defaults: Winograd too."""

    name: ClassVar[str] = "mnn"

    def _open(self, threads: int) -> None:
        from MNN import expr, nn

        self.expr = expr
        manager = nn.create_runtime_manager(({"backend": "CPU", "precision": "high", "numThread": threads},))
        names = [self.spec.input_name], [self.spec.output_name]
        self.net = nn.load_module_from_file(os.fspath(self.path), *names, runtime_manager=manager)

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        # It computes in blocks of four channels; a plain NCHW input would be taken for that layout.
        image = self.expr.const(batch, list(batch.shape), self.expr.NCHW, self.expr.float)
        output = self.net.forward([self.expr.convert(image, self.expr.NC4HW4)])[0]
        return self.expr.convert(output, self.expr.NCHW).read().copy()
