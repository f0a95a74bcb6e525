"""Options of an export that must fit each other, the format and the network, checked before anything is converted."""

from __future__ import annotations

from collections.abc import Sequence

from unet_edge.model import UNet
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.spec import HEADS, ModelSpec

from .compress import COMPRESSIONS
from .graph import HEAD_LAYER
from .to_coreml import TARGETS

__all__ = [
    "EXPORT_HEADS",
    "FORMATS",
    "MASK_IMAGE",
    "PRECISIONS",
    "check_format",
    "check_layers",
    "choose_target",
    "head_changes",
]

FORMATS = {"onnx": ".onnx", "coreml": ".mlpackage"}
"""Format -> suffix of its artefacts."""

PRECISIONS = {"onnx": ("fp32",), "coreml": ("fp16", "fp32", "mixed")}
"""Format -> its precisions, the default first."""

MASK_IMAGE = "mask-image"
EXPORT_HEADS = (*HEADS, MASK_IMAGE)
"""What a graph can return; a mask image is a class map as a picture, for Core ML."""

DEFAULT_TARGET = "macOS14"
SEVERAL_SIZES_TARGET = "macOS15"  # coremltools: multifunction models need iOS 18, macOS 15

# Apple's sample for segmentation (huggingface/coreml-examples, SemanticSegmentationSample) reads the class map here.
_COREML_NAMES = {"classmap": "semanticPredictions", MASK_IMAGE: "mask"}


def check_format(format: str, precision: str | None, head: str, compression: str | None, layers: Sequence[str]) -> str:
    """Check what needs no file.

    Returns:
        The precision: the one asked for, or the format's default.

    Raises:
        InputError: an unknown name, or something that the format or the precision does not have.
    """
    for name, value, known in (("format", format, FORMATS), ("head", head, EXPORT_HEADS)):
        if value not in known:
            raise InputError(f"{name} must be one of {', '.join(known)}, not {value!r}")
    if compression is not None and compression not in COMPRESSIONS:
        raise InputError(f"compression must be one of {', '.join(COMPRESSIONS)}, not {compression!r}")
    if format == "onnx" and (compression or head == MASK_IMAGE):
        raise InputError(f"{'--compress' if compression else f'--head {head}'} is for Core ML: add --format coreml")
    allowed = PRECISIONS[format]
    if precision is not None and precision not in allowed:
        raise InputError(f"{format} is exported in {' or '.join(allowed)}, not {precision}: choose another --precision")
    precision = precision or allowed[0]
    if (precision == "mixed") != bool(layers):
        raise InputError("--precision mixed and --fp32-layers belong together: name the layers that stay in fp32")
    return precision


def choose_target(asked: str | None, sizes: int, compression: str | None) -> tuple[str, str]:
    """The oldest system for a Core ML package, and a note where an option needs a newer one than the default.

    Args:
        asked: by the user, or None.
        sizes: number of input sizes.
        compression: its name, or None.

    Raises:
        InputError: an unknown target, or one that is too old for what is asked besides.
    """
    if asked is not None and asked not in TARGETS:
        raise InputError(f"target must be one of {', '.join(TARGETS)}, not {asked!r}")
    needs = [(SEVERAL_SIZES_TARGET, "a package with several sizes")] if sizes > 1 else []
    newer = COMPRESSIONS[compression].target if compression else None
    needs += [(newer, f"--compress {compression}")] if newer else []
    if asked is None and needs:
        target, why = max(needs, key=lambda need: TARGETS.index(need[0]))
        return target, f"{why} needs {target} or later, so that is the package's target"
    for target, why in needs:
        if asked is not None and TARGETS.index(asked) < TARGETS.index(target):
            raise InputError(f"{why} needs {target} or later, not {asked}: raise --target or leave it out")
    return asked or DEFAULT_TARGET, ""


def check_layers(model: UNet, layers: Sequence[str]) -> None:
    """Insist that every name is a layer of the network.

    Raises:
        InputError: with the names of the blocks.
    """
    known = {name for name, _ in model.named_modules() if name} | {HEAD_LAYER}
    unknown = [layer for layer in layers if layer not in known]
    if unknown:
        blocks = ", ".join([name for name, _ in model.named_children()] + [HEAD_LAYER])
        raise InputError(f"--fp32-layers: the network has no {', '.join(unknown)}; its blocks are {blocks}")


def head_changes(spec: ModelSpec, format: str, head: str) -> dict[str, object]:
    """The fields of a spec that a head sets.

    Raises:
        InputError: a mask image of classes whose mask values no 8-bit grey picture holds.
    """
    name = _COREML_NAMES.get(head, head) if format == "coreml" else head
    if head != MASK_IMAGE:
        return {"head": head, "output_name": name}
    values = [info.value for info in spec.classes]
    grey = tuple(value for value in values if isinstance(value, int) and value <= 255)
    if len(grey) < len(values):
        raise InputError("the masks have colours or values above 255, which no grey picture holds: use --head classmap")
    # As in a 1-bit mask file, 0 and 1 are black and white.
    return {"head": "classmap", "output_name": name, "label_values": (0, 255) if grey == (0, 1) else grey}
