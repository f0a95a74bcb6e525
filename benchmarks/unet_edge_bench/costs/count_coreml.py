"""Cost of a Core ML package's operations, as the lint of the Neural Engine counts them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from unet_edge_runtime.errors import BackendError, InputError, MissingExtraError

from .layer import LayerCost, kind_of

if TYPE_CHECKING:
    from unet_edge_export.mil import Package

__all__ = ["count_coreml"]


def count_coreml(path: Path, size: tuple[int, int], batch: int) -> list[LayerCost]:
    """As `layer_costs`, of the function that takes that size; compressed weights count as the oldest chip reads them.

    A package takes one image at a time, so a batch repeats everything.
    """
    try:
        from unet_edge_export.mil import Package
        from unet_edge_export.mil.lint.chips import CHIPS, DEFAULT_CHIP
        from unet_edge_export.mil.lint.cost import graph_cost
        from unet_edge_export.mil.lint.graph import Graph, size_bytes
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "torch", "export", f"counting the layers of {path}") from None
    package = Package.open(path)
    graph = Graph(package.function(_function_for(package, size)))
    cost = graph_cost(graph, CHIPS[DEFAULT_CHIP])
    if cost.open:
        raise BackendError(f"{path}: {cost.open} operations have shapes that are only known when they run")
    outputs = [sum(size_bytes(value) or 0 for value in node.outputs) for node in graph.nodes]
    return [
        LayerCost(
            name=each.operation,
            kind=kind_of(each.kind),
            macs=each.macs * batch,
            input_bytes=(each.traffic - each.weights - written) * batch,
            output_bytes=written * batch,
            weight_bytes=each.weights * batch,
        )
        for each, written in zip(cost.operations, outputs, strict=True)
    ]


def _function_for(package: Package, size: tuple[int, int]) -> str:
    """The first function whose input has that size."""
    sizes = {name: next(iter(package.function(name).inputs)).shape[-2:] for name in package.functions}
    for name, taken in sizes.items():
        if tuple(taken) == size:
            return name
    listed = " or ".join("x".join(map(str, taken)) for taken in sizes.values())
    raise InputError(f"{package.path}: takes images of {listed} only, not {size[0]}x{size[1]}")
