"""Core ML packages through Core ML itself, which is macOS only."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .backend import Backend
from .errors import BackendError, MissingExtraError, ModelFileError
from .spec import METADATA_KEY, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CoreMLBackend"]

_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


class CoreMLBackend(Backend):
    """An exported .mlpackage on a Mac.

    Args:
        path: the package.
        compute_units: cpu, gpu, ane (CPU and Neural Engine, the default: ALL can abort the process) or all.

    Raises:
        BackendError: not on macOS.
        MissingExtraError: coremltools is not installed.
        ModelFileError: missing, damaged, or not exported by unet-edge.
    """

    name: ClassVar[str] = "coreml"

    def __init__(self, path: Path | str, compute_units: str = "ane") -> None:
        self.path = Path(path)
        if not self.path.is_dir():
            raise ModelFileError(f"{self.path}: no such Core ML package")
        if sys.platform != "darwin":
            raise BackendError(
                f"{self.path}: Core ML runs on macOS only; here, export to ONNX too and use --backend onnx"
            )
        if compute_units not in _UNITS:
            raise BackendError(f"compute units must be one of {', '.join(_UNITS)}, not {compute_units!r}")
        try:
            import coremltools
            from PIL import Image
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "coremltools", "export", "backend coreml") from None
        self._image = Image
        try:
            self.model: Any = coremltools.models.MLModel(
                str(self.path), compute_units=getattr(coremltools.ComputeUnit, _UNITS[compute_units])
            )
        except Exception as error:
            raise ModelFileError(f"{self.path}: Core ML cannot load it ({error})") from None
        text = self.model.user_defined_metadata.get(METADATA_KEY)
        if text is None:
            raise ModelFileError(
                f"{self.path}: carries no {METADATA_KEY}; only models from `unet-edge export` know how to treat images"
            )
        self.spec = ModelSpec.from_json(text, str(self.path))
        kind = self.model.get_spec().description.input[0].type.WhichOneof("Type")
        self.takes_image: bool = kind == "imageType"

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        return np.concatenate([self._run_one(image[None]) for image in batch])

    def _run_one(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        value: Any = batch
        if self.takes_image:
            # The network's [0, 1] came from 8-bit values, or from a resize rounded to them, so this is exact.
            pixels = (batch[0] * 255).round().clip(0, 255).astype(np.uint8)
            value = self._image.fromarray(pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2))
        try:
            return np.asarray(self.model.predict({self.spec.input_name: value})[self.spec.output_name])
        except Exception as error:
            raise BackendError(f"{self.path}: Core ML failed ({error})") from None
