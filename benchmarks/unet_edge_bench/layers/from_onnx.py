"""An ONNX file as layers, run with ONNX Runtime and without optimisation, so that every operation can be seen."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnx
import onnxruntime
import torch
from onnx import TensorProto, helper, numpy_helper
from onnx.reference import ReferenceEvaluator
from torch import Tensor

from unet_edge_export.quiet import first_line
from unet_edge_runtime.errors import BackendError, ModelFileError
from unet_edge_runtime.onnx_backend import OnnxBackend

from .layer import INPUT, Layer, Way, fp16_step
from .model import HEAD, LayeredModel, See
from .onnx_options import convolution, pooling, resizing
from .wiring import Wiring, named, renamed

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["OnnxModel"]

_KINDS = {
    "Conv": "conv",
    "ConvTranspose": "upconv",
    "Relu": "relu",
    "MaxPool": "pool",
    "AveragePool": "pool",
    "Resize": "upsample",
    "Upsample": "upsample",
    "Concat": "concat",
}
_HEAD = ("Sigmoid", "Softmax", "ArgMax", "Greater", "GreaterOrEqual")
_PLUMBING = ("Cast", "Identity", "QuantizeLinear", "DequantizeLinear")
_AT_ONCE = 1 << 26  # numbers that one run may return: 256 MiB


class OnnxModel(LayeredModel):
    """An exported .onnx file; errors are those of `OnnxBackend`."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        # It checks the file and reads its spec.
        self.path, self.spec = path, OnnxBackend(path).spec
        self.proto = _any_size(onnx.load(path))
        self._constants = _constants(self.proto, path)
        layers, self._values, self.has_head = self._read()
        names = named(layers, self._weight_names)
        self._values = {names[own]: value for own, value in self._values.items()}
        self.layers = renamed(layers, names)
        self._constants.clear()
        self._undo_threshold()

    def run(self, batch: NDArray[np.float32], see: See) -> None:
        """In several runs, where the values are too many for one."""
        see(INPUT, torch.from_numpy(batch))
        session = self._session()
        wanted = list(self._values.items())
        if self.has_head:
            wanted.append((HEAD, self.spec.output_name))
        for part in self._parts(wanted, batch.shape[2] * batch.shape[3]):
            try:
                found = session.run([value for _, value in part], {self.spec.input_name: batch})
            except Exception as error:
                raise BackendError(f"{self.path}: ONNX Runtime failed ({first_line(error)})") from None
            for (name, _), array in zip(part, found, strict=True):
                see(name, torch.from_numpy(np.ascontiguousarray(array)))

    def _session(self) -> Any:
        """With every layer's value as an output."""
        there = {value.name for value in self.proto.graph.output}
        seen = dict.fromkeys(value for value in self._values.values() if value not in there)
        self.proto.graph.output.extend(helper.make_empty_tensor_value_info(value) for value in seen)
        return _open(self.proto, self.path)

    def _parts(self, wanted: list[tuple[str, str]], pixels: int) -> Iterator[list[tuple[str, str]]]:
        """Values to return together. A value has at most the channels of the widest level, a quarter a level down."""
        first = next(layer.weight for layer in self.layers if layer.weight is not None)
        count = max(1, _AT_ONCE // (2 * len(first) * pixels))
        return (wanted[start : start + count] for start in range(0, len(wanted), count))

    def _read(self) -> tuple[list[Layer], dict[str, str], bool]:
        """The layers, the value that each makes, and whether something follows the logits."""
        wiring = Wiring(self.spec.input_name)
        layers: list[Layer] = []
        values: dict[str, str] = {}
        self._weight_names: dict[str, str] = {}
        for node in self.proto.graph.node:
            ways = wiring.ways(node.input)
            if not ways:
                continue
            if node.op_type in _HEAD:
                return layers, values, True
            value = node.output[0]
            if node.op_type in _KINDS or len(ways) > 1:
                layers.append(self._layer(node, value, ways))
                values[value] = value
                wiring.made_by(value, layers[-1])
            else:
                source = next(name for name in node.input if name in wiring)
                extra = "" if node.op_type in _PLUMBING else node.op_type
                wiring.passed_on(source, value, "fp16" if _narrows(node) else "fp32", extra=extra)
        if not any(layer.kind == "conv" for layer in layers):
            raise ModelFileError(f"{self.path}: holds no convolution: it is no U-Net")
        return layers, values, False

    def _layer(self, node: Any, value: str, ways: tuple[Way, ...]) -> Layer:
        kind = _KINDS.get(node.op_type, node.op_type)
        if kind in ("conv", "upconv"):
            weight, bias = (self._constant(node, index) for index in (1, 2))
            if weight is None or weight.ndim != 4:
                raise ModelFileError(f"{self.path}: {node.name} has no weights of four sides: export it again")
            self._weight_names[value] = node.input[1]
            half = weight.dtype == torch.float16
            bias = None if bias is None else bias.float()
            return Layer(
                value,
                kind,
                node.op_type,
                ways,
                weight=weight.float(),
                bias=bias,
                weight_step=fp16_step(weight.float()) if half else None,
                bias_step=None if bias is None or not half else fp16_step(bias),
                options=convolution(node, tuple(weight.shape[2:])),
                precision="fp16" if half else "fp32",
            )
        if kind == "pool":
            return Layer(value, kind, node.op_type, ways, options=pooling(node))
        if kind == "upsample":
            scales = self._constant(node, 2 if node.op_type == "Resize" else 1)
            return Layer(value, kind, node.op_type, ways, options=resizing(node, scales, self.path))
        axis = next((helper.get_attribute_value(each) for each in node.attribute if each.name == "axis"), 1)
        return Layer(value, kind, node.op_type, ways, options={"axis": axis % 4} if kind == "concat" else {})

    def _constant(self, node: Any, index: int) -> Tensor | None:
        """An input that does not depend on the image, or None where it is left out."""
        if index >= len(node.input) or not node.input[index]:
            return None
        name = node.input[index]
        if name not in self._constants:
            raise ModelFileError(f"{self.path}: {node.name} takes {name}, which is no constant: export it again")
        return torch.from_numpy(self._constants[name].copy())


def _any_size(proto: Any) -> Any:
    """Let a graph of fixed size take any: nothing in it but these notes depends on the size."""
    for value in (*proto.graph.input, *proto.graph.output):
        for axis, side in enumerate(value.type.tensor_type.shape.dim):
            if axis >= 2:
                side.dim_param = f"{value.name}_{axis}"
    del proto.graph.value_info[:]
    return proto


def _constants(proto: Any, path: Path) -> dict[str, NDArray[Any]]:
    """All values that do not depend on the input, computed where they are not stored (a cast weight, for example)."""
    found = {each.name: numpy_helper.to_array(each) for each in proto.graph.initializer}
    for node in proto.graph.node:
        if all(name in found or not name for name in node.input):
            try:
                results = ReferenceEvaluator(node).run(None, {name: found[name] for name in node.input if name})
            # The operators of a file of unknown origin fail in as many ways.
            except Exception as error:
                message = f"{path}: the constant of {node.name} cannot be computed ({first_line(error)})"
                raise ModelFileError(f"{message}: export it again") from None
            found.update(zip(node.output, (np.asarray(result) for result in results), strict=True))
    return found


def _narrows(node: Any) -> bool:
    targets = [helper.get_attribute_value(each) for each in node.attribute if each.name == "to"]
    return node.op_type == "Cast" and targets == [TensorProto.FLOAT16]


def _open(proto: Any, path: Path) -> Any:
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    try:
        return onnxruntime.InferenceSession(proto.SerializeToString(), options, providers=["CPUExecutionProvider"])
    except Exception as error:
        raise ModelFileError(f"{path}: ONNX Runtime cannot load it ({first_line(error)})") from None
