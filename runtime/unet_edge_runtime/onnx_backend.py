"""ONNX models through ONNX Runtime."""

from __future__ import annotations

import os
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import onnxruntime

from .backend import Backend
from .errors import BackendError, ModelFileError
from .spec import METADATA_KEY, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OnnxBackend"]


class OnnxBackend(Backend):
    """An exported .onnx file.

    Args:
        path: the file.
        threads: threads inside one operation; the runtime's choice (physical cores) by default.
        providers: ONNX Runtime execution providers, in order; the CPU by default.

    Raises:
        ModelFileError: missing, damaged, or not exported by unet-edge.
    """

    name: ClassVar[str] = "onnx"

    def __init__(self, path: Path | str, threads: int | None = None, providers: list[str] | None = None) -> None:
        self.path = Path(path)
        if not self.path.is_file():
            raise ModelFileError(f"{self.path}: no such ONNX file")
        options = onnxruntime.SessionOptions()
        options.log_severity_level = 3
        if threads:
            options.intra_op_num_threads = threads
        try:
            self.session = onnxruntime.InferenceSession(
                os.fspath(self.path), options, providers=providers or ["CPUExecutionProvider"]
            )
        # ONNX Runtime raises a dozen classes without a common root below Exception.
        except Exception as error:
            raise ModelFileError(
                f"{self.path}: ONNX Runtime cannot load it: no ONNX file, or a damaged one; export it again "
                f"({_first_line(error)})"
            ) from None
        text = self.session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
        if text is None:
            raise ModelFileError(
                f"{self.path}: carries no {METADATA_KEY}; only models from `unet-edge export` know how to treat images"
            )
        self.spec = ModelSpec.from_json(text, str(self.path))
        self._check_interface()

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        if self._batch and self._batch != len(batch):
            return np.concatenate([self._run_fixed(image[None]) for image in batch])
        return self._run_fixed(batch)

    def _run_fixed(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        try:
            output = self.session.run([self.spec.output_name], {self.spec.input_name: batch})[0]
        except Exception as error:
            raise BackendError(f"{self.path}: ONNX Runtime failed ({_first_line(error)})") from None
        return np.asarray(output)

    def _check_interface(self) -> None:
        inputs = [value.name for value in self.session.get_inputs()]
        outputs = [value.name for value in self.session.get_outputs()]
        if inputs != [self.spec.input_name] or self.spec.output_name not in outputs:
            raise ModelFileError(
                f"{self.path}: its graph has inputs {inputs} and outputs {outputs}, "
                f"its spec says {self.spec.input_name} and {self.spec.output_name}: export it again"
            )
        value = self.session.get_inputs()[0]
        # A side that may vary is a name or None.
        shape = [side if isinstance(side, int) else None for side in value.shape]
        wanted = [self.spec.channels, *(self.spec.input_size or (None, None))]
        if value.type != "tensor(float)" or len(shape) != 4 or shape[0] not in (None, 1) or shape[1:] != wanted:
            raise ModelFileError(
                f"{self.path}: its graph takes {value.type} of shape {value.shape}, its spec says float of shape "
                f"{['N', *(side or 'any' for side in wanted)]}: export it again"
            )
        self._batch = shape[0]


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
