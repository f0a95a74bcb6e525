"""Rules about single operations: which there are, and with which settings."""

from __future__ import annotations

from collections.abc import Iterator

from .rule import Hit, Subject, hit, rule

__all__ = ["NATIVE"]

_CATALOG = "ANEForge docs/op-catalog.md"

_CATALOGUED = """
abs add atan avg_pool batch_norm cast ceil clamped_relu clip concat conv conv_transpose depth_to_space dequantize
elu equal erf exp exp2 expand_dims floor gelu greater greater_equal identity instance_norm inverse l2_norm
layer_norm leaky_relu less less_equal linear log logical_not matmul max_pool maximum minimum mul not_equal pad
pixel_shuffle pixel_unshuffle pow prelu quantize real_div reduce_argmax reduce_max reduce_mean reduce_min
reduce_sum reduce_sum_square relu relu6 reshape resize resize_bilinear resize_nearest_neighbor round rsqrt
scaled_tanh select sigmoid sigmoid_hard sign silu slice_by_index slice_by_size softmax softplus softsign
space_to_depth split sqrt square squeeze stack sub tanh threshold tile transpose upsample_bilinear
upsample_nearest_neighbor
"""

NATIVE = frozenset(_CATALOGUED.split())
"""Operations that the Neural Engine has on every chip, the resizers in software before the M2 (ANEForge's catalogue,
measured on M1, M2 and M5; slice_by_index folds into its neighbour)."""

_SINCE = {"crop_resize": 2, "resample": 2, "affine": 2, "topk": 2, "argsort": 2, "gather": 2, "sin": 3, "cos": 3}
_STATEFUL = ("read_state", "write_state", "coreml_update_state", "cond", "while_loop", "lstm", "gru", "rnn")
_RESIZERS = ("upsample_bilinear", "upsample_nearest_neighbor", "resize", "resize_bilinear", "resize_nearest_neighbor")


@rule(
    "OP",
    "error",
    "M",
    remedy="replace the operation by ones that the Neural Engine has, or move it out of the network",
    source=_CATALOG,
)
def operations(subject: Subject) -> Iterator[Hit]:
    """The operation runs on the Neural Engine of this chip."""
    for node in subject.graph.nodes:
        since = _SINCE.get(node.kind)
        if since is not None and since > subject.chip.generation.number:
            yield hit(node, f"{node.kind} is native from the M{since} on")
        elif since is None and node.kind not in NATIVE and node.kind not in _STATEFUL:
            yield hit(node, f"{node.kind} is not known to run on the Neural Engine")


@rule(
    "STATE",
    "error",
    "H",
    remedy="unroll loops and recurrences, and keep state outside: a U-Net needs neither",
    source=f"{_CATALOG}; hollance/neural-engine docs/unsupported-layers.md",
)
def state(subject: Subject) -> Iterator[Hit]:
    """No state, control flow or recurrent layer."""
    for node in subject.graph.of(*_STATEFUL):
        yield hit(node, f"{node.kind}: the network leaves the Neural Engine here")


@rule(
    "CAST",
    "warn",
    "M",
    remedy="return floating-point values or the argmax itself, and convert after the prediction",
    source=f"{_CATALOG} (cast: int32 walled on M1)",
)
def casts(subject: Subject) -> Iterator[Hit]:
    """No cast to an integer on the first generation, which runs it on the CPU."""
    if subject.chip.generation.number > 1:
        return
    for node in subject.graph.of("cast"):
        if "int" in node.output.dtype:
            yield hit(node, f"a cast to {node.output.dtype} runs on the CPU")


@rule(
    "RESIZE",
    "warn",
    "M",
    remedy="export a network with transposed convolutions for this chip, or compare its masks on the device",
    source=f"{_CATALOG}; docs/cross-chip.md (texture engine from the M2 on)",
)
def resizes(subject: Subject) -> Iterator[Hit]:
    """Resizing runs in hardware."""
    if not subject.chip.generation.resizes:
        for node in subject.graph.of(*_RESIZERS):
            yield hit(node, f"{node.kind} is emulated before the M2, with other rounding")


@rule(
    "UPSCALE",
    "warn",
    "L",
    remedy="enlarge in several steps of two",
    source="hollance/neural-engine",
)
def upscales(subject: Subject) -> Iterator[Hit]:
    """Upsampling by at most two at a time."""
    for node in subject.graph.of(*_RESIZERS):
        before, after = (node.tensor("x").shape, node.output.shape)
        factors = [b / a for a, b in zip(before[-2:], after[-2:], strict=False) if a and b]
        if factors and max(factors) > 2:
            yield hit(node, f"enlarges {max(factors):g} times in one step")


@rule(
    "PAD",
    "warn",
    "M",
    remedy="pad with a constant, or before the network (the runtime does)",
    source=_CATALOG,
)
def paddings(subject: Subject) -> Iterator[Hit]:
    """Padding is constant where the engine has no other."""
    for node in subject.graph.of("pad"):
        mode = node.setting("mode", "constant")
        if mode != "constant" and not subject.chip.generation.resizes:
            yield hit(node, f"padding mode {mode} runs in hardware from the M2 on")


@rule(
    "CONCAT",
    "warn",
    "M",
    remedy="join feature maps along the channels, all of one type",
    source=_CATALOG,
)
def concatenations(subject: Subject) -> Iterator[Hit]:
    """Concatenation along the channels, of inputs of one type."""
    for node in subject.graph.of("concat"):
        axis, rank = node.numbers("axis", (1,))[0], len(node.output.shape)
        dtypes = sorted({tensor.dtype for tensor in node.tensors.get("values", ())})
        if axis % max(rank, 1) != 1:
            yield hit(node, f"joins along axis {axis}; only channels (axis 1) are a plain copy")
        if len(dtypes) > 1:
            yield hit(node, f"joins {' and '.join(dtypes)}")


@rule(
    "SLICE",
    "warn",
    "M",
    remedy="crop before or after the network, or keep the values within 4094",
    source="ANEForge docs/numeric-cliffs.md",
)
def slices(subject: Subject) -> Iterator[Hit]:
    """No slice that starts inside a row: before the M4, values above 4094 become infinite there."""
    if subject.chip.generation.slices_columns:
        return
    for node in subject.graph.of("slice_by_size", "slice_by_index"):
        begin, open_ended = node.numbers("begin"), node.numbers("begin_mask")
        if begin and begin[-1] and not (open_ended and open_ended[-1]):
            yield hit(node, f"starts at column {begin[-1]}: values above 4094 become infinite")


@rule(
    "ARGMAX",
    "info",
    "M",
    remedy="compare masks with `unet-edge evaluate` on the device itself",
    source="apple/coreai-torch #116; ultralytics/yolo-ios-app #322",
)
def argmaxes(subject: Subject) -> Iterator[Hit]:
    """An argmax in the graph is worth a check: Core AI computes it wrongly on an iPhone 17 Pro."""
    for node in subject.graph.of("reduce_argmax"):
        yield hit(node, "the same operation is wrong on one device under Core AI (not Core ML)")


@rule(
    "SOFTMAX",
    "info",
    "H",
    remedy="take the argmax of the logits",
    source="softmax keeps the order of its inputs",
)
def wasted_softmax(subject: Subject) -> Iterator[Hit]:
    """No softmax before an argmax."""
    for node in subject.graph.of("reduce_argmax"):
        before = subject.graph.producer(node.tensor("x").name)
        if before is not None and before.kind == "softmax":
            yield hit(before, "softmax changes nothing about the argmax that follows")
