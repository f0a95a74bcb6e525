"""Rules about what goes in and out."""

from __future__ import annotations

from collections.abc import Iterator

from .graph import FLOATS, shape_text, size_bytes
from .rule import Hit, Subject, rule

__all__: list[str] = []


@rule(
    "FLEX-RANGE",
    "error",
    "H",
    remedy="export one fixed size, or several as functions of one package",
    source="apple/coremltools #2370, #1029, #1764; coremltools docs-guides flexible-inputs",
)
def ranges_of_sizes(subject: Subject) -> Iterator[Hit]:
    """No input whose size is a range: all but the default size left the Neural Engine."""
    for feature in subject.graph.inputs:
        if feature.ranges and feature.is_flexible:
            yield Hit(feature.name, "input", "takes a range of sizes: all but the default one ran elsewhere")


@rule(
    "FLEX-ENUM",
    "warn",
    "M",
    remedy="export one fixed size, or several as functions of one package",
    source="apple/coremltools #2370, #2730, #1909",
)
def lists_of_sizes(subject: Subject) -> Iterator[Hit]:
    """No input with a list of sizes: only the default one was measured on the Neural Engine."""
    for feature in subject.graph.inputs:
        if feature.choices and feature.is_flexible:
            yield Hit(feature.name, "input", "takes a list of sizes: only the default one surely runs well")


@rule(
    "IMAGE-OUT",
    "error",
    "H",
    remedy="cast the labels to floating point before an image output, or return an array",
    source="MIL.proto (image outputs)",
)
def image_outputs(subject: Subject) -> Iterator[Hit]:
    """An output picture is computed as a (1, C, H, W) floating-point value."""
    for feature in subject.graph.outputs:
        value = subject.graph.values.get(feature.name)
        if feature.kind == "image" and value is not None and (len(value.shape) != 4 or value.dtype not in FLOATS):
            yield Hit(feature.name, "output", f"a picture cannot be made of {value.dtype} {shape_text(value.shape)}")


@rule(
    "BIG-OUT",
    "info",
    "H",
    remedy="export with --head classmap, where logits are not needed",
    source="software-mansion/react-native-executorch PR #1463: 5 to 5.7 ms a frame at 21x520x520 on an iPhone 16",
)
def big_outputs(subject: Subject) -> Iterator[Hit]:
    """Labels leave the device, not a map of logits for each class."""
    for feature in subject.graph.outputs:
        value = subject.graph.values.get(feature.name)
        if feature.kind == "image" or value is None or len(value.shape) != 4 or value.dtype not in FLOATS:
            continue
        size = size_bytes(value)
        if (value.shape[1] or 0) > 1 and size is not None:
            yield Hit(feature.name, "output", f"{size / 1e6:.2f} MB of {shape_text(value.shape)} leave the device")
