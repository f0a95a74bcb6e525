"""What is known of one layer: what it costs by its shapes, and how long it took."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from typing import Any

__all__ = ["LayerCost", "LayerTime", "Profile", "kind_of"]

_KINDS = {
    "fused_conv": "conv",
    "qlinear_conv": "conv",
    "conv_integer": "conv",
    "conv2d": "conv",
    "conv_transpose2d": "conv_transpose",
    "batch_norm2d": "batch_norm",
    "re_lu": "relu",
    "max_pool": "pool",
    "max_pool2d": "pool",
    "upsample": "resize",
    "upsample_bilinear": "resize",
    "upsample_bilinear2d": "resize",
    "resize_bilinear": "resize",
    "cat": "concat",
    "arg_max": "argmax",
    "reduce_argmax": "argmax",
    "reorder_input": "reorder",
    "reorder_output": "reorder",
}


def kind_of(operation: str) -> str:
    """One word for an operation whatever its runtime calls it: Conv, FusedConv, Conv2d and conv2d are "conv"."""
    words = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", "_", operation.removeprefix("Nhwc")).lower()
    return _KINDS.get(words, words)


@dataclass(frozen=True)
class LayerCost:
    """One operation of the network, counted from its shapes.

    Attributes:
        name: of the node, as the file has it.
        kind: `kind_of` its operation.
        macs: multiply-accumulates of convolutions and matrix products; other operations count none, as in
            `torch.utils.flop_counter`.
        input_bytes: of the computed values it reads.
        output_bytes: of the values it writes.
        weight_bytes: of its weights and biases.
    """

    name: str
    kind: str
    macs: int
    input_bytes: int
    output_bytes: int
    weight_bytes: int

    @property
    def flops(self) -> int:
        """Floating-point operations: two for each multiply-accumulate."""
        return 2 * self.macs

    @property
    def bytes(self) -> int:
        """Bytes it reads and writes if nothing is fused."""
        return self.input_bytes + self.output_bytes + self.weight_bytes


@dataclass(frozen=True)
class LayerTime:
    """One operation as a runtime executed it, which may have fused several of the network's, or added some.

    Attributes:
        name: as the runtime calls it.
        kind: `kind_of` its operation; "reorder" changes a memory layout.
        ms: median milliseconds of one run.
        bytes: that it reads and writes, weights included; 0 where the runtime does not say.
    """

    name: str
    kind: str
    ms: float
    bytes: int = 0


@dataclass(frozen=True)
class Profile:
    """The times of all layers. It iterates over them.

    Attributes:
        layers: in order of execution.
        source: "measured", or "estimated" where shares come from a plan rather than from a clock.
        runs: timed runs behind each median.
        profiled_ms: median milliseconds of a whole run while the layers were timed.
        plain_ms: median milliseconds of a whole run while they were not; the two kinds of run took turns.
        accounted: share of a profiled run that its layers add up to; the rest passes between them.
        overhead: how much longer a run takes because of the profiling: 0.02 is 2 %.
    """

    layers: tuple[LayerTime, ...]
    source: str
    runs: int
    profiled_ms: float
    plain_ms: float
    accounted: float = 1.0
    overhead: float = 0.0

    def __iter__(self) -> Iterator[LayerTime]:
        return iter(self.layers)

    def __len__(self) -> int:
        return len(self.layers)

    @property
    def layers_ms(self) -> float:
        """The layers' times added up."""
        return sum(layer.ms for layer in self.layers)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {**asdict(self), "layers_ms": self.layers_ms}
