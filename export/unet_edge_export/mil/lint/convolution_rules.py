"""Rules about convolutions and pooling: kernels, strides, padding."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import Node, shape_text
from .rule import Hit, Subject, hit, rule

__all__: list[str] = []

_CATALOG = "ANEForge docs/op-catalog.md"
_CONVOLUTIONS = ("conv", "conv_transpose")


@rule(
    "TCONV",
    "error",
    "H",
    remedy="use kernel = stride = 2 without padding, as UNet's decoder does",
    source="onnxruntime convtranspose_op_builder.cc; apple/coremltools #2281; pytorch/executorch #11705",
)
def transposed_padding(subject: Subject) -> Iterator[Hit]:
    """Transposed convolutions are padded alike on both sides, and their output has the natural size."""
    for node in subject.graph.of("conv_transpose"):
        uneven = [axis for axis, (before, after) in enumerate(_transposed_pads(node)) if before != after]
        if uneven:
            yield hit(node, f"uneven padding {_transposed_pads(node)}: results differ between devices")
        elif _surplus(node):
            yield hit(node, f"unnatural size {shape_text(node.output.shape)}: results differ between devices")


@rule(
    "TCONV16",
    "warn",
    "M",
    remedy="enlarge in several smaller steps",
    source="apple/coremltools #2450",
)
def transposed_stride(subject: Subject) -> Iterator[Hit]:
    """Strides of transposed convolutions are below 16."""
    for node in subject.graph.of("conv_transpose"):
        if max(node.numbers("strides", (1,))) >= 16:
            yield hit(node, f"stride {node.numbers('strides')}: such models failed to load on devices")


@rule(
    "KERNEL",
    "error",
    "M",
    remedy="use smaller kernels, several in a row",
    source=f"{_CATALOG}; docs/developer/op-quirks.md",
)
def kernels(subject: Subject) -> Iterator[Hit]:
    """Kernels of convolutions are no larger than the engine's."""
    limits = subject.chip.generation
    for node in subject.graph.of(*_CONVOLUTIONS):
        height, width = node.kernel
        if width > limits.kernel_width or height > limits.kernel_height:
            most = f"{limits.kernel_height}x{limits.kernel_width}"
            yield hit(node, f"kernel {height}x{width} (height x width), at most {most} on {subject.chip.name}")


@rule(
    "STRIDE",
    "warn",
    "M",
    remedy="use strides of 1 or 2",
    source=_CATALOG,
)
def strides(subject: Subject) -> Iterator[Hit]:
    """Strides of convolutions are 1, 2, 3, 4 or 8."""
    for node in subject.graph.of(*_CONVOLUTIONS):
        odd = [each for each in node.numbers("strides") if each not in (1, 2, 3, 4, 8)]
        if odd:
            yield hit(node, f"stride {odd[0]} is none of 1, 2, 3, 4, 8")


@rule(
    "POOL",
    "warn",
    "L",
    remedy="pool 2x2 with stride 2",
    source="hollance/neural-engine",
)
def pools(subject: Subject) -> Iterator[Hit]:
    """Pooling windows are at most 13 wide, their strides at most 2."""
    for node in subject.graph.of("max_pool", "avg_pool", "l2_pool"):
        window, stride = node.numbers("kernel_sizes", (1,)), node.numbers("strides", (1,))
        if max(window) > 13 or max(stride) > 2:
            yield hit(node, f"window {window}, stride {stride}")


@rule(
    "DILATION",
    "warn",
    "L",
    remedy="use a deeper network instead of dilated convolutions",
    source="hollance/neural-engine docs/unsupported-layers.md",
)
def dilations(subject: Subject) -> Iterator[Hit]:
    """Convolutions are not dilated."""
    for node in subject.graph.of(*_CONVOLUTIONS):
        if max(node.numbers("dilations", (1,))) > 1:
            yield hit(node, f"dilation {node.numbers('dilations')} was not on the Neural Engine when last looked at")


def _transposed_pads(node: Node) -> list[tuple[int, int]]:
    """(before, after) of each spatial axis that a transposed convolution cuts off its output."""
    kind, pad = node.setting("pad_type", "valid"), node.numbers("pad")
    if kind == "custom":
        return list(zip(pad[0::2], pad[1::2], strict=False))
    if not kind.startswith("same"):
        return [(0, 0)] * len(node.kernel)
    cut = [max(0, size - stride) for size, stride in zip(node.kernel, node.numbers("strides", (1, 1)), strict=False)]
    return [(each // 2, each - each // 2) for each in cut]


def _surplus(node: Node) -> bool:
    """Whether `output_shape` asks for another size than input, kernel, stride and padding give."""
    wanted = node.numbers("output_shape")
    if not wanted:
        return False
    rows = zip(
        node.tensor("x").shape[-2:],
        node.kernel,
        node.numbers("strides", (1, 1)),
        node.numbers("dilations", (1, 1)),
        _transposed_pads(node),
        strict=False,
    )
    natural = [(n - 1) * s + d * (k - 1) + 1 - sum(pad) for n, k, s, d, pad in rows if n]
    return len(natural) == 2 and list(wanted[-2:]) != natural
