"""A Core ML package as layers, run by the reference interpreter, which shows every value as the program stores it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from torch import Tensor

from unet_edge_export.graph import PIXEL_SHARE
from unet_edge_export.mil import Function, Interpreter, Operation
from unet_edge_export.mil.constants import constants_of
from unet_edge_export.mil.values import Constant
from unet_edge_export.reference_backend import CoreMLReferenceBackend

from .layer import INPUT, Layer, Quantiser, Way, fp16_step
from .mil_options import convolution, pooling, resizing
from .mil_weights import stored_form
from .model import HEAD, LayeredModel, See
from .wiring import Wiring, named, renamed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PackageModel"]

_KINDS = {
    "conv": "conv",
    "conv_transpose": "upconv",
    "relu": "relu",
    "max_pool": "pool",
    "avg_pool": "pool",
    "upsample_bilinear": "upsample",
    "upsample_nearest_neighbor": "upsample",
    "resize_bilinear": "upsample",
    "resize_nearest_neighbor": "upsample",
    "resize": "upsample",
    "concat": "concat",
}
_HEAD = ("sigmoid", "softmax", "reduce_argmax", "greater", "greater_equal")
_PLUMBING = ("cast", "identity", "quantize", "dequantize")
_RANGES = {"int8": (-128, 127), "uint8": (0, 255)}


class PackageModel(LayeredModel):
    """An exported .mlpackage; errors are those of `CoreMLReferenceBackend`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        backend = CoreMLReferenceBackend(path)
        self.path, self.spec, self.package = path, backend.spec, backend.package
        self._functions = {_size(self.package.function(name)): name for name in reversed(self.package.functions)}
        self.sizes = tuple(self._functions)
        # The functions of a package are the same network at several sizes.
        function = self.package.function()
        self._takes_picture = function.inputs[0].kind == "image"
        layers, weights, self.has_head = self._read(function)
        self.layers = renamed(layers, named(layers, weights))
        self._undo_threshold()
        if self._takes_picture and self._scale == 1:
            self._undo_pixels(PIXEL_SHARE)
        elif self._takes_picture:
            self.factors = {INPUT: self._scale}

    def run(self, batch: NDArray[np.float32], see: See) -> None:
        """With every value rounded to the type that the program declares for it."""
        function = self.package.function(self._functions[(batch.shape[2], batch.shape[3])])
        layers, *_ = self._read(function)
        names = {own.name: layer.name for own, layer in zip(layers, self.layers, strict=True)}

        def hook(operation: Operation | None, name: str, raw: Tensor, stored: Tensor) -> None:
            if operation is None:
                see(INPUT, _typed(stored, function.arguments[0].dtype))
            elif name in names:
                see(names[name], _typed(stored, operation.outputs[0].dtype))
            if self.has_head and name == function.results[0]:
                see(HEAD, stored)

        Interpreter(self.package, function.name).predict({self.spec.input_name: self._fed(batch)}, hook)

    def _fed(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        if not self._takes_picture:
            return batch
        pixels = (batch[0] * 255).round().clip(0, 255).astype(np.uint8)
        return pixels[0] if len(pixels) == 1 else np.moveaxis(pixels, 0, 2)

    def _read(self, function: Function) -> tuple[list[Layer], dict[str, str], bool]:
        """The layers, the names of their weights, and whether something follows the logits."""
        self._constants = constants_of(self.package, function.operations)
        self._scale = 1.0
        self._types = {each.name: each for each in function.arguments}
        self._types.update((output.name, output) for each in function.operations for output in each.outputs)
        wiring = Wiring(function.arguments[0].name)
        layers: list[Layer] = []
        weights: dict[str, str] = {}
        for operation in function.operations:
            values = [value for bound in operation.inputs.values() for value in bound if isinstance(value, str)]
            ways = wiring.ways(values)
            if not ways:
                continue
            if operation.type in _HEAD:
                return layers, weights, True
            if operation.type in _KINDS or len(ways) > 1:
                layers.append(self._layer(operation, ways, function))
                wiring.made_by(operation.name, layers[-1])
                weights[operation.name] = next(map(str, operation.inputs.get("weight", ())), "")
            else:
                self._pass_on(operation, next(value for value in values if value in wiring), wiring)
        return layers, weights, False

    def _layer(self, operation: Operation, ways: tuple[Way, ...], function: Function) -> Layer:
        name, kind = operation.name, _KINDS.get(operation.type, operation.type)
        dtype = operation.outputs[0].dtype
        precision = dtype if dtype in ("fp16", "fp32") else "fp32"
        given = {key: self._given(bound) for key, bound in operation.inputs.items()}
        options: dict[str, Any] = {}
        if kind in ("conv", "upconv"):
            form = stored_form(operation.inputs["weight"][0], function, self._constants)
            bias = given.get("bias")
            return Layer(
                name,
                kind,
                operation.type,
                ways,
                weight=form.values,
                bias=None if bias is None else _float(bias),
                weight_step=form.step,
                bias_step=None if bias is None or bias.dtype != np.float16 else fp16_step(_float(bias)),
                compression=form.text,
                palette=form.palette,
                options=convolution(given, tuple(form.values.shape[2:])),
                precision=precision,
            )
        if kind == "pool":
            options = pooling(operation.type, given)
        elif kind == "upsample":
            options = resizing(operation, given, self._types[str(operation.inputs["x"][0])].shape)
        elif kind == "concat":
            options = {"axis": int(given.get("axis", 1)) % 4}
        return Layer(name, kind, operation.type, ways, options=options, precision=precision)

    def _pass_on(self, operation: Operation, source: str, wiring: Wiring) -> None:
        output, factor = operation.outputs[0], self._factor(operation)
        # The pixels' 1/255, where the first two convolutions do not hold it.
        scales = factor is not None and self._takes_picture and wiring.ways([source])[0].layer == INPUT
        self._scale *= factor if factor is not None and scales else 1.0
        wiring.passed_on(
            source,
            output.name,
            "fp16" if output.dtype == "fp16" else "fp32",
            self._quantiser(operation),
            "" if operation.type in _PLUMBING or scales else operation.type,
        )

    def _factor(self, operation: Operation) -> float | None:
        """What an operation multiplies by, if it does nothing else."""
        if operation.type != "mul":
            return None
        constants = [self._given((value,)) for bound in operation.inputs.values() for value in bound]
        numbers = [float(one) for one in constants if one is not None and np.size(one) == 1]
        return numbers[0] if len(numbers) == 1 else None

    def _quantiser(self, operation: Operation) -> Quantiser | None:
        if operation.type != "quantize":
            return None
        scale = float(np.max(self._given(operation.inputs["scale"])))
        zero = self._given(operation.inputs.get("zero_point", ()))
        low, high = _RANGES[operation.outputs[0].dtype]
        shift = 0.0 if zero is None else float(np.max(zero))
        return Quantiser((low - shift) * scale, (high - shift) * scale, scale)

    def _given(self, bound: tuple[str | Constant, ...]) -> Any:
        """A constant parameter, or None."""
        if len(bound) != 1:
            return None
        value = bound[0]
        return value.value() if isinstance(value, Constant) else self._constants.get(value)


def _size(function: Function) -> tuple[int, int]:
    shape = function.inputs[0].shape
    return shape[-2], shape[-1]


def _float(array: NDArray[Any]) -> Tensor:
    return torch.from_numpy(array.astype(np.float32))


def _typed(stored: Tensor, dtype: str) -> Tensor:
    """In the type that the program declares, which loses nothing."""
    return stored.half() if dtype == "fp16" else stored
