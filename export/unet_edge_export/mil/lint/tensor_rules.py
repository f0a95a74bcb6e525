"""Rules about values and weights: types, shapes, sizes, ranges."""

from __future__ import annotations

import math
from collections.abc import Iterator

from unet_edge_export.mil.values import TensorType

from .chips import FLOOR_MS, LARGEST_PROGRAM, LARGEST_WEIGHT
from .cost import graph_cost
from .graph import FLOATS, Node, shape_text, size_bytes
from .rule import Hit, Subject, hit, rule

__all__: list[str] = []

_ROW_BYTES = 64
_LARGE_MAP = 1536 * 864  # pixels
_FP16_MAX = 65504.0
_PRODUCT_MAX = 32752.0
_PRECISE = (1e-4, 1e2)
_WIDE = ("fp32", "fp64", "bf16")


@rule(
    "FP32",
    "error",
    "H",
    remedy="export in fp16 (the default); keep single layers in fp32 only where RANGE or a comparison asks for it",
    source="coremltools docs-guides typed-execution; ANEForge docs/developer/op-quirks.md",
)
def precision(subject: Subject) -> Iterator[Hit]:
    """Every operation computes in fp16, the only type of the Neural Engine."""
    scaling = {node.name for node in _input_scaling(subject)}
    for node in subject.graph.nodes:
        if node.kind == "cast" or node.name in scaling:
            continue
        wide = [tensor.dtype for tensor in (*node.outputs, *node.all_tensors) if tensor.dtype in _WIDE]
        if wide:
            yield hit(node, f"computes in {wide[0]}, on the GPU or the CPU")


@rule(
    "INPUT-SCALE",
    "warn",
    "H",
    remedy="fold 1/255 into the weights of the first convolution, so that the picture goes in as it is",
    source="apple/coremltools #2213; MLComputePlan of ZipDepth (M1 Max, macOS 27): 4.2 % of the cost",
)
def input_scaling(subject: Subject) -> Iterator[Hit]:
    """No arithmetic on a picture before the network: Core ML does it in fp32 on the CPU."""
    for node in _input_scaling(subject):
        yield hit(node, f"{node.kind} of the input in {node.output.dtype} runs on the CPU")


@rule(
    "RANK",
    "warn",
    "H",
    remedy="keep values as (N, C, H, W)",
    source="Apple, Deploying Transformers on the Apple Neural Engine; ANECCompile: rank must be between 0 and 5",
)
def ranks(subject: Subject) -> Iterator[Hit]:
    """Floating-point values are (N, C, H, W); more than five axes do not compile."""
    for node in subject.graph.nodes:
        rank = len(node.output.shape)
        if rank > 5:
            yield hit(node, f"{rank} axes, and the engine has five", "error")
        elif rank != 4 and node.output.dtype in FLOATS:
            yield hit(node, f"{rank} axes: {shape_text(node.output.shape)}")


@rule(
    "DIM",
    "error",
    "M",
    remedy="predict in tiles",
    source="ANEForge docs/cross-chip.md",
)
def sides(subject: Subject) -> Iterator[Hit]:
    """Height, width and channels are within the engine's limits."""
    limits = subject.chip.generation
    for node in subject.graph.nodes:
        shape = node.output.shape
        if len(shape) < 4:
            continue
        if max(size or 0 for size in shape[2:]) > limits.side or (shape[1] or 0) > limits.channels:
            most = f"{limits.side} a side and {limits.channels} channels on {subject.chip.name}"
            yield hit(node, f"{shape_text(node.output.shape)}, at most {most}")


@rule(
    "SIZE",
    "warn",
    "M",
    remedy="predict in tiles, and look where the operations run before you measure",
    source="apple/coremltools #2247; MLComputePlan of ZipDepth 1536x864",
)
def large_maps(subject: Subject) -> Iterator[Hit]:
    """No map as large as those of which parts ran on the GPU (864x1536)."""
    shapes = {node.name: node.output.shape for node in subject.graph.nodes if len(node.output.shape) == 4}
    large = {name: (h or 0) * (w or 0) for name, (*_, h, w) in shapes.items()}
    largest = max(large, key=lambda name: large[name], default="")
    if largest and large[largest] >= _LARGE_MAP:
        height, width = shapes[largest][2:]
        yield Hit(largest, "program", f"maps up to {height}x{width}: parts of such a network ran on the GPU")


@rule(
    "ALIGN-W",
    "info",
    "M",
    remedy="choose a width that is a multiple of 32 * 2**depth (512 for a depth of 4)",
    source="Apple, Deploying Transformers on the Apple Neural Engine (rows are stored in 64-byte units)",
)
def widths(subject: Subject) -> Iterator[Hit]:
    """Rows fill whole units of 64 bytes: a width that is a multiple of 32 in fp16."""
    for node in subject.graph.of("conv", "conv_transpose", "concat", "max_pool"):
        row = size_bytes(TensorType("", node.output.dtype, node.output.shape[-1:])) if node.output.shape else None
        if row and row % _ROW_BYTES:
            stored = -(-row // _ROW_BYTES) * _ROW_BYTES
            yield hit(node, f"width {node.output.shape[-1]}: rows of {row} bytes are stored in {stored}")


@rule(
    "ALIGN-C",
    "info",
    "L",
    remedy="choose base channels that are a multiple of 16",
    source="tinygrad's notes on the Neural Engine",
)
def channels(subject: Subject) -> Iterator[Hit]:
    """Convolutions but the 1x1 ones have multiples of 16 output channels."""
    for node in subject.graph.of("conv", "conv_transpose"):
        count = node.output.shape[1] if len(node.output.shape) > 1 else None
        if count and count % 16 and node.kernel != (1, 1):
            yield hit(node, f"{count} output channels")


@rule(
    "WEIGHT",
    "error",
    "M",
    remedy="use fewer channels, or compress the weights",
    source="a public placement study on an M2 Pro",
)
def weights(subject: Subject) -> Iterator[Hit]:
    """One weight is at most 224 MiB in use, all together below 2 GiB."""
    for weight in subject.graph.weights.values():
        if weight.bytes_on(subject.chip) > LARGEST_WEIGHT:
            yield Hit(weight.name, "const", f"{weight.bytes_on(subject.chip) / 2**20:.0f} MiB in one weight")
    total = sum(weight.bytes_on(subject.chip) for weight in subject.graph.weights.values())
    if total >= LARGEST_PROGRAM:
        yield Hit(subject.graph.name, "program", f"{total / 2**30:.1f} GiB of weights")


@rule(
    "COMPRESS",
    "info",
    "M",
    remedy="palettes and sparse weights are read compressed on every chip, int8 from the M2, blocks from the M3 on",
    source="ANEForge docs/cross-chip.md",
)
def compression(subject: Subject) -> Iterator[Hit]:
    """Compressed weights are of a form that this chip decompresses while it reads them."""
    for weight in subject.graph.weights.values():
        folded = sorted(set(weight.forms) - subject.chip.generation.streams)
        if folded:
            kinds = " and ".join(folded)
            yield Hit(weight.name, "weight", f"{kinds}: unpacked to fp16 before use, so smaller on disk only")


@rule(
    "PCS",
    "error",
    "H",
    remedy="palettize without per-channel scales",
    source="apple/coremltools PR #2688 (open): MPSGraph verification fails at load on macOS 26",
)
def scaled_palettes(subject: Subject) -> Iterator[Hit]:
    """No scale behind a palette: such models crash when the Neural Engine loads them."""
    for name, operation in subject.graph.unpackers.items():
        if "blockwise_shift_scale" in operation.type:
            sources = [*operation.inputs.get("data", ()), *operation.inputs.get("nonzero_data", ())]
            before = [subject.graph.unpackers.get(each) for each in sources if isinstance(each, str)]
            if any(each is not None and "lut" in each.type for each in before):
                yield Hit(name, operation.type, "scales the values of a palette (enable_per_channel_scale)")


@rule(
    "TINY",
    "info",
    "M",
    remedy="put several images in one prediction, or measure the CPU too",
    source="vx-lang/Vx #436",
)
def tiny(subject: Subject) -> Iterator[Hit]:
    """The program is worth a dispatch: small ones are placed on the CPU though the Neural Engine could."""
    flops = graph_cost(subject.graph, subject.chip).flops
    milliseconds = flops / subject.chip.peak.tflops / 1e9
    if milliseconds < FLOOR_MS:
        yield Hit(subject.graph.name, "program", f"{milliseconds:.3g} ms of arithmetic, {FLOOR_MS:g} ms of dispatch")


@rule(
    "RANGE",
    "error",
    "M",
    remedy="keep the operation in fp32, or scale its weights",
    source="ANEForge docs/numeric-cliffs.md; hollance/neural-engine docs/16-bit.md",
)
def ranges(subject: Subject) -> Iterator[Hit]:
    """Values measured over calibration images fit fp16, with room; needs those values."""
    for node in subject.graph.nodes:
        if node.name not in subject.ranges or node.output.dtype != "fp16":
            continue
        largest = max(abs(bound) if abs(bound) <= _FP16_MAX else math.inf for bound in subject.ranges[node.name])
        if largest > _FP16_MAX:
            yield hit(node, f"values overflow fp16, which ends at {_FP16_MAX:g}")
        elif largest > _PRODUCT_MAX and node.kind in ("matmul", "linear"):
            yield hit(node, f"values up to {largest:.3g}: products overflow from {_PRODUCT_MAX:g} on")
        elif largest > _PRECISE[1] or 0 < largest < _PRECISE[0]:
            yield hit(node, f"values up to {largest:.3g}, where fp16 is coarse", "warn")


def _input_scaling(subject: Subject) -> list[Node]:
    """Operations between an fp32 input and the first cast, all of whose other operands are constants."""
    reached, found = {value.name for value in subject.graph.arguments if value.dtype in _WIDE}, []
    for node in subject.graph.of("mul", "add", "sub", "real_div"):
        if node.all_tensors and all(tensor.name in reached for tensor in node.all_tensors):
            found.append(node)
            reached.update(tensor.name for tensor in node.outputs)
    return found
