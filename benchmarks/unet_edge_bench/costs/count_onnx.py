"""Cost of an ONNX file's nodes, from the shapes that ONNX Runtime reports of a run: the onnx package is not needed."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import BackendError

from .ask import ask
from .layer import LayerCost, kind_of

__all__ = ["count_onnx", "macs_of"]

Shapes = list[list[int]]

# Where the weights stand among the inputs.
_CONVOLUTIONS = {"Conv": 1, "FusedConv": 1, "ConvInteger": 1, "QLinearConv": 3}
_PRODUCTS = ("MatMul", "MatMulInteger", "QLinearMatMul")

# Constants that say how something is computed: they are no weights.
_SETTINGS = ("Resize", "Upsample", "Reshape", "Slice", "Pad", "Clip", "Split", "Squeeze", "Unsqueeze", "Transpose")


def count_onnx(path: Path, size: tuple[int, int], batch: int) -> list[LayerCost]:
    """As `layer_costs`; the nodes are those of the file, before any optimisation."""
    answer = ask("shapes", path, size, batch)
    return [_cost(path, node, answer["runs_a_batch"]) for node in answer["nodes"]]


def macs_of(operation: str, inputs: Shapes, outputs: Shapes) -> int:
    """Multiply-accumulates of a node; the rule is that of `LayerCost`.

    A convolution does one for every output value and every weight of its channel; a transposed one for every
    input value instead; a matrix product one for every output value and every term of its sum.

    Args:
        operation: ONNX name, such as "Conv".
        inputs: their shapes, weights included.
        outputs: likewise.

    Raises:
        IndexError: a shape is missing.
    """
    if operation in _CONVOLUTIONS:
        return math.prod(outputs[0]) * math.prod(inputs[_CONVOLUTIONS[operation]][1:])
    if operation == "ConvTranspose":
        return math.prod(inputs[0]) * math.prod(inputs[1][1:])
    if operation == "Gemm":
        # Either operand may be transposed: the sum's length is what is left of the first one.
        return math.prod(outputs[0]) * (math.prod(inputs[0]) // outputs[0][0])
    if operation in _PRODUCTS:
        return math.prod(outputs[0]) * inputs[0][-1]
    return 0


def _cost(path: Path, node: dict[str, Any], times: int) -> LayerCost:
    operation = node["operation"]
    try:
        macs = macs_of(operation, node["inputs"], node["outputs"])
    except IndexError:
        raise BackendError(
            f"{path}: this ONNX Runtime does not report the shapes of {node['name']} ({operation}): install a newer one"
        ) from None
    return LayerCost(
        name=node["name"],
        kind=kind_of(operation),
        macs=macs * times,
        input_bytes=node["input_bytes"] * times,
        output_bytes=node["output_bytes"] * times,
        weight_bytes=0 if operation in _SETTINGS else node["weight_bytes"] * times,
    )
