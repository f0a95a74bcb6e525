"""What a network costs: arithmetic, traffic and weights of each operation, and what that means in time at least."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass

from unet_edge_export.mil.values import TensorType

from .chips import FLOOR_MS, Chip
from .graph import Graph, Node, size_bytes

__all__ = ["PROJECTION", "Cost", "OperationCost", "Projection", "graph_cost", "project"]

PROJECTION = "projection, not a measurement"


@dataclass(frozen=True)
class OperationCost:
    """One operation.

    Attributes:
        operation: name of the value it computes.
        kind: its type.
        macs: multiply-accumulates of convolutions and matrix products; other operations count none, as in
            `torch.utils.flop_counter`.
        traffic: bytes read and written if nothing is fused: inputs, weights, outputs.
        weights: bytes of its weights, as the chip reads them.
    """

    operation: str
    kind: str
    macs: int
    traffic: int
    weights: int


@dataclass(frozen=True)
class Cost:
    """A function on a chip.

    Attributes:
        operations: one by one, in order; those whose shapes are open are left out.
        open: how many are left out.
        interface: bytes of inputs and outputs.
    """

    operations: tuple[OperationCost, ...]
    open: int
    interface: int

    @property
    def macs(self) -> int:
        """Multiply-accumulates."""
        return sum(each.macs for each in self.operations)

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def traffic(self) -> int:
        """Bytes read and written if nothing is fused."""
        return sum(each.traffic for each in self.operations)

    @property
    def weights(self) -> int:
        """Bytes of weights as the chip reads them, a shared one counted at each use."""
        return sum(each.weights for each in self.operations)

    @property
    def intensity(self) -> float:
        """Operations a byte of unfused traffic."""
        return self.flops / self.traffic if self.traffic else 0.0


@dataclass(frozen=True)
class Projection:
    """The least time that one prediction can take on a chip, and why.

    Attributes:
        chip: its name.
        milliseconds: the largest of the three below.
        limit: which of them it is: "arithmetic", "memory" or "dispatch".
        arithmetic_ms: operations / `tflops`.
        memory_ms: bytes of weights, inputs and outputs / bandwidth: everything between stays on the chip.
        dispatch_ms: a prediction's fixed cost.
        tflops: the rate of arithmetic, 10^12 operations a second.
        measured: whether somebody measured that rate; else it is Apple's figure.
        rate: what the rate is of.
        source: of the rate.
        claimed_ms: the same bound at Apple's figure, None where Apple gives none.
        status: `PROJECTION`.
    """

    chip: str
    milliseconds: float
    limit: str
    arithmetic_ms: float
    memory_ms: float
    dispatch_ms: float
    tflops: float
    measured: bool
    rate: str
    source: str
    claimed_ms: float | None
    status: str = PROJECTION

    def to_dict(self) -> dict[str, object]:
        """Plain data."""
        return asdict(self)


def graph_cost(graph: Graph, chip: Chip) -> Cost:
    """Count a function: formulas as in `OperationCost`."""
    costs = [_operation_cost(node, chip) for node in graph.nodes]
    known = tuple(cost for cost in costs if cost is not None)
    ends = [graph.values[name] for name in _ends(graph) if name in graph.values]
    return Cost(known, len(costs) - len(known), sum(size_bytes(value) or 0 for value in ends))


def project(cost: Cost, chip: Chip) -> Projection:
    """max(arithmetic, memory, dispatch), in milliseconds: a bound from published rates, not a measurement."""
    peak = chip.peak
    parts = {
        "arithmetic": cost.flops / peak.tflops / 1e9,
        "memory": (cost.weights + cost.interface) / chip.bandwidth / 1e6,
        "dispatch": FLOOR_MS,
    }
    limit = max(parts, key=lambda part: parts[part])
    rest = max(parts["memory"], parts["dispatch"])
    claimed = None if chip.claimed is None else max(rest, cost.flops / chip.claimed.tflops / 1e9)
    return Projection(
        chip=chip.name,
        milliseconds=parts[limit],
        limit=limit,
        arithmetic_ms=parts["arithmetic"],
        memory_ms=parts["memory"],
        dispatch_ms=parts["dispatch"],
        tflops=peak.tflops,
        measured=chip.measured is not None,
        rate=peak.what,
        source=peak.source,
        claimed_ms=claimed,
    )


def _ends(graph: Graph) -> list[str]:
    return [*(value.name for value in graph.arguments), *(feature.name for feature in graph.outputs)]


def _operation_cost(node: Node, chip: Chip) -> OperationCost | None:
    sizes = [size_bytes(tensor) for tensor in (*node.all_tensors, *node.outputs)]
    macs = _macs(node)
    if None in sizes or macs is None:
        return None
    weights = sum(weight.bytes_on(chip) for weight in node.weights.values())
    return OperationCost(node.name, node.kind, macs, weights + sum(size or 0 for size in sizes), weights)


def _macs(node: Node) -> int | None:
    """Multiply-accumulates, or None where a shape is open.

    A convolution does one for every output value and every weight of its channel; a transposed one for every
    input value instead; a matrix product one for every output value and every term of its sum.
    """
    if node.kind == "conv":
        return _times(node.output, node.type_of("weight").shape[1:])
    if node.kind == "conv_transpose":
        return _times(node.tensor("x"), node.type_of("weight").shape[1:])
    if node.kind == "linear":
        return _times(node.output, node.type_of("weight").shape[-1:])
    if node.kind == "matmul":
        inner = -2 if any(node.numbers("transpose_x")) else -1
        return _times(node.output, node.type_of("x").shape[inner:][:1])
    return 0


def _times(tensor: TensorType, factors: tuple[int | None, ...]) -> int | None:
    if tensor.elements is None or None in factors:
        return None
    return tensor.elements * math.prod(factor or 0 for factor in factors)
