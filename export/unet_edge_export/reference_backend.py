"""Core ML packages through the reference interpreter, on any machine."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np
import torch

from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import BackendError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY

from .mil import Feature, Interpreter, Package
from .mil.interpreter import PRECISIONS

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["CoreMLReferenceBackend"]

Size = tuple[int, int]


class CoreMLReferenceBackend(Backend):
    """An exported .mlpackage, executed operation by operation with PyTorch.

    It proves the file: that what was converted, compressed and described computes what the checkpoint does. It does
    not prove a device's arithmetic, which only the device shows (`--backend coreml` on a Mac).

    A package with several functions is run by the one whose input has the batch's size.

    Args:
        path: the package.
        precision: "stored" rounds every value to the type that the program declares, "ideal" rounds none.
        function: run this function only; by default the one that fits.
        threads: threads inside one operation, for the whole process; torch's choice by default.

    Attributes:
        package: the open package.
        precision: as given.

    Raises:
        ModelFileError: missing, damaged, not exported by unet-edge, or with operations that are not known here.
        BackendError: an unknown precision.
    """

    name: ClassVar[str] = "coreml-ref"
    proves: ClassVar[str] = "proves the file, not the device's arithmetic"

    def __init__(
        self, path: Path | str, precision: str = "stored", function: str = "", threads: int | None = None
    ) -> None:
        if precision not in PRECISIONS:
            raise BackendError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        if threads:
            torch.set_num_threads(threads)
        self.path, self.precision = Path(path), precision
        self.package = Package.open(self.path)
        spec = self.package.model_spec
        if spec is None:
            raise ModelFileError(
                f"{self.path}: carries no {METADATA_KEY}; only models from `unet-edge export` know how to treat images"
            )
        self.spec = spec
        names = [function] if function else self.package.functions
        self._inputs = {name: self._checked_input(name) for name in names}
        # The default function comes first, and wins where two take the same size.
        self._by_size = {size: name for name in reversed(names) for size in _sizes(self._inputs[name])}
        self._interpreters: dict[str, Interpreter] = {}
        self._check_sizes(named=bool(function))
        self._interpreter(names[0])

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        name = self._function_for((batch.shape[2], batch.shape[3]))
        return np.concatenate([self._run_one(image, name) for image in batch])

    def _run_one(self, image: NDArray[np.float32], name: str) -> NDArray[np.generic]:
        value: NDArray[np.generic] = image[None]
        if self._inputs[name].kind == "image":
            # The network's [0, 1] came from 8-bit values, or from a resize rounded to them, so this is exact.
            pixels = (image * 255).round().clip(0, 255).astype(np.uint8)
            value = pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)
        output = self._interpreter(name).predict({self.spec.input_name: value})[self.spec.output_name]
        # A picture, and the map that Apple's sample takes, have neither batch nor channel.
        return output[None, None] if output.ndim == 2 else output

    def _interpreter(self, name: str) -> Interpreter:
        if name not in self._interpreters:
            self._interpreters[name] = Interpreter(self.package, name, self.precision)
        return self._interpreters[name]

    def _function_for(self, size: Size) -> str:
        found = self._by_size.get(size)
        found = found or next((name for name, one in self._inputs.items() if one.accepts(_shape(one, size))), None)
        if found is None:
            raise ValueError(f"{self.path} has no function for images of {size}")
        return found

    def _checked_input(self, name: str) -> Feature:
        """The input of a function, which has to be the one that the spec describes."""
        spec, function = self.spec, self.package.function(name)
        inputs, outputs = [each.name for each in function.inputs], [each.name for each in function.outputs]
        if inputs != [spec.input_name] or spec.output_name not in outputs:
            raise self._inconsistent(
                f"has inputs {inputs} and outputs {outputs}", f"{spec.input_name} and {spec.output_name}"
            )
        feature = function.inputs[0]
        picture = feature.kind == "image" and feature.channels == spec.channels
        array = feature.kind == "array" and len(feature.shape) == 4 and feature.shape[1] == spec.channels
        if not (picture or array):
            what = feature.color if feature.kind == "image" else f"{feature.kind} {feature.shape}"
            raise self._inconsistent(f"takes {what}", f"{spec.channels} channels")
        return feature

    def _check_sizes(self, named: bool) -> None:
        """Hold the spec's sizes against the functions'; a function chosen by name has its own."""
        spec, default = self.spec, next(iter(self._inputs.values()))
        if named or (spec.input_size is None and not default.is_flexible):
            size = None if default.is_flexible else (default.shape[-2], default.shape[-1])
            self.spec = spec.replace(input_size=size, input_sizes=())
            return
        for size in spec.input_sizes or ([spec.input_size] if spec.input_size else []):
            if not any(one.accepts(_shape(one, size)) for one in self._inputs.values()):
                raise self._inconsistent(f"takes images of {sorted(self._by_size)}", f"{size}")

    def _inconsistent(self, found: str, expected: str) -> ModelFileError:
        return ModelFileError(f"{self.path}: its program {found}, its spec says {expected}: export it again")


def _shape(feature: Feature, size: Size) -> tuple[int, ...]:
    """The shape of an input of this (height, width)."""
    return size if feature.kind == "image" else (*feature.shape[:2], *size)


def _sizes(feature: Feature) -> list[Size]:
    """All (height, width) that an input names; none where it takes a range."""
    shapes = feature.choices or (() if feature.ranges else (feature.shape,))
    return [(shape[-2], shape[-1]) for shape in shapes]
