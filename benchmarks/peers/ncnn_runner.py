"""ncnn on the CPU."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, ClassVar

import numpy as np
from peer_backend import PeerBackend

from unet_edge_runtime.errors import BackendError, ModelFileError

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["NcnnRunner"]


class NcnnRunner(PeerBackend):
    """Reads the folder with the two files that pnnx made; its defaults, which include Winograd, in fp32."""

    name: ClassVar[str] = "ncnn"

    def _open(self, threads: int) -> None:
        import ncnn

        self.ncnn = ncnn
        self.net = ncnn.Net()
        self.net.opt.num_threads = threads
        self.net.opt.use_fp16_packed = False
        self.net.opt.use_fp16_storage = False
        self.net.opt.use_fp16_arithmetic = False
        self.net.opt.use_bf16_storage = False
        graph, weights = os.fspath(self.path / "net.param"), os.fspath(self.path / "net.bin")
        if self.net.load_param(graph) or self.net.load_model(weights):
            raise ModelFileError(f"{self.path}: ncnn cannot load it: run benchmarks/peers/run.py again")

    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        extractor = self.net.create_extractor()
        extractor.input("in0", self.ncnn.Mat(batch[0]))
        failed, output = extractor.extract("out0")
        if failed:
            raise BackendError(f"{self.path}: ncnn failed (its code {failed})")
        return np.array(output)[None]
