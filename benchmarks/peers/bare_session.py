"""ONNX Runtime by hand: what a programmer would write without us."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from peer_backend import PeerBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["BareSession"]


class BareSession(PeerBackend):
    """A session of its own, all optimisations on, one operator after another."""

    name: ClassVar[str] = "onnxruntime"

    def _open(self, threads: int) -> None:
        import onnxruntime

        options = onnxruntime.SessionOptions()
        options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_ENABLE_ALL
        options.execution_mode = onnxruntime.ExecutionMode.ORT_SEQUENTIAL
        options.intra_op_num_threads = threads
        self.session = onnxruntime.InferenceSession(os.fspath(self.path), options, providers=["CPUExecutionProvider"])

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        return self.session.run(None, {self.spec.input_name: batch})[0]
