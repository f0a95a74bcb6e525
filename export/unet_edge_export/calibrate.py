"""Ranges of a package's values on real images, for 8-bit activations; needs no Mac."""

from __future__ import annotations

import contextlib
import json
import math
import tempfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from unet_edge_runtime.backend import Backend
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import ModelSpec

from .images import CheckImages, choose_images, load, spread
from .mil import Interpreter, Operation
from .package_text import takes_image

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

__all__ = ["Ranges", "activation_quantizer", "calibration_images", "measure_ranges"]

LIMIT = 16  # images; the extremes of activations hardly move after a dozen

Ranges = dict[str, dict[str, float]]
"""Value's name -> {"rmin": smallest, "rmax": largest}, as coremltools keeps them."""


def calibration_images(checkpoint: Path, spec: ModelSpec, given: list[Path] | None = None) -> CheckImages:
    """The images given; else training images of the checkpoint's run; else what the artefact is compared on.

    Validation images come last, because a package is scored on them.
    """
    if given:
        return CheckImages(list(spread(given, LIMIT)), f"{len(spread(given, LIMIT))} given images")
    training = spread(_training_images(checkpoint.parent / "split.json"), LIMIT)
    if training:
        return CheckImages(list(training), f"{len(training)} training images of the run")
    return choose_images(checkpoint, spec)


def activation_quantizer(spec: ModelSpec, images: Sequence[Path | NDArray[np.generic]]) -> Callable[[Any], Any]:
    """What brings a package's activations to 8 bits.

    The quantizer leaves the first convolution's input alone: a picture has 256 values as it is, and symmetric 8-bit
    numbers would keep 128 of them.

    Args:
        spec: the package's.
        images: files, or arrays as `read_image` returns.
    """

    def quantize(package: Any) -> Any:
        import coremltools.optimize.coreml as cto

        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "calibrated.mlpackage"
            package.save(str(path))
            ranges, first = measure_ranges(path, spec, images)
        settings = cto.OpLinearQuantizerConfig(mode="linear_symmetric")
        config = cto.OptimizationConfig(global_config=settings, op_name_configs={first: None})
        with _calibrated_with(ranges):
            return cto.linear_quantize_activations(package, config, [{spec.input_name: None}])

    return quantize


def measure_ranges(package: Path, spec: ModelSpec, images: Sequence[Path | NDArray[np.generic]]) -> tuple[Ranges, str]:
    """Run a package over images and keep the extremes of every value; values that are joined share a range.

    Returns:
        The ranges, without the package's own results, which stay as they are; and the name of the first convolution.

    Raises:
        InputError: an image cannot be read.
    """
    backend = _Watched(package, spec)
    segmenter = Segmenter(backend)
    for image in images:
        segmenter.segment(load(image, spec))
    function = backend.interpreter.function
    for result in function.results:
        backend.ranges.pop(result, None)
    for operation in function.operations:
        if operation.type == "concat":
            _share([*operation.inputs["values"], operation.name], backend.ranges)
    return backend.ranges, next(operation.name for operation in function.operations if operation.type == "conv")


class _Watched(Backend):
    """The package through the interpreter, which reports every value; what it returns does not matter here."""

    name: ClassVar[str] = "calibration"

    def __init__(self, path: Path, spec: ModelSpec) -> None:
        self.path, self.spec = path, spec
        self.ranges: Ranges = {}
        self.interpreter = Interpreter(path)

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        for image in batch:
            self.interpreter.predict({self.spec.input_name: _fed(image, self.spec)}, self._see)
        channels = 1 if self.spec.head == "classmap" else self.spec.outputs
        return np.zeros((len(batch), channels, *batch.shape[2:]), np.float32)

    def _see(self, operation: Operation | None, name: str, raw: Tensor, stored: Tensor) -> None:
        if stored.is_floating_point():
            seen = self.ranges.setdefault(name, {"rmin": math.inf, "rmax": -math.inf})
            seen["rmin"] = min(seen["rmin"], float(stored.min()))
            seen["rmax"] = max(seen["rmax"], float(stored.max()))


def _fed(image: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.generic]:
    """What the package's input takes: 8-bit pixels, from which the values came, or (1, C, H, W)."""
    if not takes_image(spec):
        return image[None]
    pixels = (image * 255).round().clip(0, 255).astype(np.uint8)
    return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)


def _share(names: Sequence[object], ranges: Ranges) -> None:
    """Give values one range, so that joining them needs no change of scale (as coremltools does)."""
    known = [ranges[name] for name in names if isinstance(name, str) and name in ranges]
    if known:
        low, high = min(each["rmin"] for each in known), max(each["rmax"] for each in known)
        for each in known:
            each.update(rmin=low, rmax=high)


@contextlib.contextmanager
def _calibrated_with(ranges: Ranges) -> Iterator[None]:
    """Let coremltools' activation quantizer take these ranges instead of measuring.

    Its own measurement runs the model through Core ML, which needs a Mac, and in coremltools 9.0 keeps the range of
    the last sample only (`_update_tensor_range` overwrites before it compares). What is replaced is the one name
    `_get_activation_calibration_stats` in `coremltools.optimize.coreml._post_training_quantization`; it is called
    once, and its result is all that the quantizer's passes know of the samples.
    """
    from coremltools.optimize.coreml import _post_training_quantization as quantization

    measured = quantization._get_activation_calibration_stats
    quantization._get_activation_calibration_stats = lambda model, samples, group_size=-1: ranges
    try:
        yield
    finally:
        quantization._get_activation_calibration_stats = measured


def _training_images(split: Path) -> list[Path]:
    """Training images that a run folder names and that are still there."""
    try:
        entries = json.loads(split.read_text(encoding="utf-8"))["train"]
        paths = [Path(entry["image"]) for entry in entries]
        return [path for path in paths if path.is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []
