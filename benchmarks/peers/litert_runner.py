"""LiteRT (TensorFlow Lite) on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from peer_backend import PeerBackend

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LiteRTRunner"]


class LiteRTRunner(PeerBackend):
    """Reads the .tflite file that litert-torch made; the interpreter with XNNPACK, its default.

    The graph is NHWC, its own layout, so turning the axes is part of what an image costs here.
    """

    name: ClassVar[str] = "litert"

    def _open(self, threads: int) -> None:
        from ai_edge_litert.interpreter import Interpreter

        self.interpreter = Interpreter(os.fspath(self.path), num_threads=threads)
        self.interpreter.allocate_tensors()
        self.input = self.interpreter.get_input_details()[0]["index"]
        self.output = self.interpreter.get_output_details()[0]["index"]

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        self.interpreter.set_tensor(self.input, np.ascontiguousarray(batch.transpose(0, 2, 3, 1)))
        self.interpreter.invoke()
        return np.ascontiguousarray(self.interpreter.get_tensor(self.output).transpose(0, 3, 1, 2))
