"""Core ML packages through Core ML itself, which is macOS only."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .backend import Backend
from .coreml_client import COMPUTE_UNITS, TIMEOUT, CoreMLProcess, check_mac
from .errors import BackendError, ModelFileError
from .spec import METADATA_KEY, ModelSpec, function_name

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CoreMLBackend"]


class CoreMLBackend(Backend):
    """An exported .mlpackage on a Mac, run by a child process; compiled once and kept in the user's cache.

    Args:
        path: the package.
        compute_units: what Core ML may use: cpu, gpu, ane (CPU and Neural Engine) or all.
        timeout: seconds that opening or one prediction may take.

    Attributes:
        process: the child.
        compute_units: as given.
        opened: what the child told on opening: durations, and the functions' interfaces.

    Raises:
        BackendError: not on macOS, or Core ML cannot load the model on these compute units.
        MissingExtraError: coremltools is not installed.
        ModelFileError: missing, damaged, or not exported by unet-edge.
    """

    name: ClassVar[str] = "coreml"

    def __init__(self, path: Path | str, compute_units: str = "ane", timeout: float = TIMEOUT) -> None:
        self.path, self.compute_units = Path(path), compute_units
        if not self.path.is_dir():
            raise ModelFileError(f"{self.path}: no such Core ML package")
        if compute_units not in COMPUTE_UNITS:
            raise BackendError(f"compute units must be one of {', '.join(COMPUTE_UNITS)}, not {compute_units!r}")
        check_mac(self.path, "here, --backend coreml-ref computes what the file says, or export to ONNX as well")
        self.process = CoreMLProcess(self.path, compute_units, timeout)
        try:
            self.opened: dict[str, Any] = self.process.request("open")[0]
            text = self.opened["metadata"].get(METADATA_KEY)
            if text is None:
                raise ModelFileError(
                    f"{self.path}: carries no {METADATA_KEY}; only models from `unet-edge export` "
                    "know how to treat images"
                )
            self.spec = ModelSpec.from_json(text, str(self.path))
            self._check_interface()
        except BaseException:
            self.process.close()
            raise

    def close(self) -> None:
        """End the child process; without it that happens when the backend is forgotten."""
        self.process.close()

    def measure(self, batch: NDArray[np.float32], warmup: int, runs: int) -> dict[str, Any]:
        """Time predictions inside the child, so without what it costs to reach it.

        Args:
            batch: as for `run`; its first image is used.
            warmup: untimed predictions before.
            runs: timed ones.

        Returns:
            `wall_ms` and `native_ms` (None where Core ML does not tell), a list of samples each.

        Raises:
            ValueError: as `run`.
            BackendError: as `run`.
        """
        self._check_input(batch)
        return self.process.request("measure", [self._value(batch[0])], **self._call(batch), warmup=warmup, runs=runs)[
            0
        ]

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        call = {**self._call(batch), "output_name": self.spec.output_name}
        return np.concatenate(
            [_batched(self.process.request("predict", [self._value(x)], **call)[1][0]) for x in batch]
        )

    def _call(self, batch: NDArray[np.float32]) -> dict[str, Any]:
        size = (batch.shape[2], batch.shape[3])
        function = function_name(size) if self.spec.input_sizes else ""
        return {"function": function, "input_name": self.spec.input_name, "image": self._takes_image}

    def _value(self, image: NDArray[np.float32]) -> NDArray[np.generic]:
        """What Core ML gets of one image (C, H, W)."""
        if not self._takes_image:
            return image[None]
        # The network's [0, 1] came from 8-bit values, or from a resize rounded to them, so this is exact.
        pixels = (image * 255).round().clip(0, 255).astype(np.uint8)
        return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)

    def _check_interface(self) -> None:
        functions, spec = self.opened["functions"], self.spec
        missing = [name for size in spec.input_sizes if (name := function_name(size)) not in functions]
        if missing:
            raise ModelFileError(f"{self.path}: has no function {', '.join(missing)}: export it again")
        kinds = set()
        for function in functions.values():
            inputs, outputs = ([name for name, _ in function[key]] for key in ("inputs", "outputs"))
            if inputs != [spec.input_name] or spec.output_name not in outputs:
                raise ModelFileError(
                    f"{self.path}: its program has inputs {inputs} and outputs {outputs}, "
                    f"its spec says {spec.input_name} and {spec.output_name}: export it again"
                )
            kinds.add(function["inputs"][0][1])
        if len(kinds) != 1 or not kinds <= {"imageType", "multiArrayType"}:
            raise ModelFileError(f"{self.path}: its inputs are of the kinds {sorted(map(str, kinds))}: export it again")
        self._takes_image: bool = kinds == {"imageType"}


def _batched(output: NDArray[np.generic]) -> NDArray[np.generic]:
    """A picture, and the map that Apple's sample takes, have neither batch nor channel."""
    return output[None, None] if output.ndim == 2 else output
