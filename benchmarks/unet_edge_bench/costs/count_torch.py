"""Cost of a checkpoint's layers, from the graph that is exported of it."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.errors import MissingExtraError

from .count import check_multiple
from .layer import LayerCost, kind_of

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["count_torch"]


def count_torch(path: Path, size: tuple[int, int], batch: int) -> list[LayerCost]:
    """As `layer_costs`; batch norm is folded away, and the names are those of the exported layers."""
    try:
        import torch  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("torch", "train", f"counting the layers of {path}") from None
    from unet_edge.checkpoint import load_model
    from unet_edge_export.graph import ExportGraph, operation_name, trace

    model, spec = load_model(path)
    check_multiple(path, size, spec.multiple)
    graph = ExportGraph(model, spec)
    program = trace(graph, spec.channels, size)
    inputs = set(program.graph_signature.user_inputs)
    costs: list[LayerCost] = []
    for node in program.graph.nodes:
        if node.op != "call_function":
            continue
        modules = list((node.meta.get("nn_module_stack") or {}).values())
        name = operation_name(graph, modules[-1][0] if modules else "", node.name)
        costs.append(_cost(name, node, inputs, batch))
    return costs


def _cost(name: str, node: Any, inputs: set[str], batch: int) -> LayerCost:
    """Of a node of the exported program; constants are its placeholders other than the image."""
    weights: list[Tensor] = []
    values: list[Tensor] = []
    for each in node.all_input_nodes:
        is_constant = each.op in ("placeholder", "get_attr") and each.name not in inputs
        (weights if is_constant else values).append(each.meta["val"])
    output = node.meta["val"]
    kind = kind_of(node.target.overloadpacket.__name__)
    macs = 0
    if kind in ("conv", "conv_transpose"):
        per = values[0] if kind == "conv_transpose" else output
        macs = per.numel() * math.prod(weights[0].shape[1:])
    return LayerCost(name, kind, macs * batch, _bytes(values) * batch, _bytes([output]) * batch, _bytes(weights))


def _bytes(tensors: list[Tensor]) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
