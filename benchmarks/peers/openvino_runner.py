"""OpenVINO on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

from peer_backend import PeerBackend

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["OpenVINORunner"]


class OpenVINORunner(PeerBackend):
    """Reads the ONNX file; the latency hint, and fp32 also where the CPU has bf16."""

    name: ClassVar[str] = "openvino"

    def _open(self, threads: int) -> None:
        import openvino

        settings = {
            "PERFORMANCE_HINT": "LATENCY",
            "INFERENCE_NUM_THREADS": threads,
            "INFERENCE_PRECISION_HINT": "f32",
        }
        self.request = openvino.Core().compile_model(os.fspath(self.path), "CPU", settings).create_infer_request()

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        # Inputs are shared, not copied: its documentation's advice for latency.
        self.request.infer({0: batch}, share_inputs=True)
        return self.request.get_output_tensor(0).data.copy()
