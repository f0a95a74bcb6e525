"""`ModelSpec`: what an artefact must know about itself to turn an image into a mask."""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from .errors import ModelFileError

__all__ = [
    "IGNORE_LABEL",
    "MAX_VALUE",
    "METADATA_KEY",
    "ClassInfo",
    "MaskValue",
    "ModelSpec",
    "class_color",
    "function_name",
]

METADATA_KEY = "unet_edge.spec"
"""The one key under which the spec is embedded in ONNX `metadata_props` and in Core ML user-defined metadata."""

IGNORE_LABEL = 255
"""The label of pixels that do not count; class labels are 0..254."""

MAX_VALUE = (1 << 16) - 1
"""The largest grey value of a mask; files hold at most 16 bits."""

SPEC_VERSION = 1
HEADS = ("logits", "probabilities", "classmap")
PADDINGS = ("reflect", "edge", "zero")
RESAMPLINGS = ("nearest", "box", "bilinear", "bicubic", "lanczos")
MAX_INPUT = 1 << 28  # pixels of the network's input: 16384 x 16384

MaskValue = int | tuple[int, int, int]
"""How a class looks in a mask file: a grey or palette value, or an RGB colour."""

# Okabe and Ito's palette: distinguishable with every common form of colour blindness (jfly.uni-koeln.de/color).
_PALETTE = (
    (0, 0, 0),
    (230, 159, 0),
    (86, 180, 233),
    (0, 158, 115),
    (240, 228, 66),
    (0, 114, 178),
    (213, 94, 0),
    (204, 121, 167),
)


def class_color(index: int) -> tuple[int, int, int]:
    """A colour (RGB, 0..255) for class `index`: black for 0, then well separated ones without end."""
    if index < len(_PALETTE):
        return _PALETTE[index]
    import colorsys

    hue = (index * 0.618033988749895) % 1.0  # the golden ratio spreads hues evenly for any count
    red, green, blue = colorsys.hsv_to_rgb(hue, 0.55 + 0.35 * (index % 2), 0.95 - 0.25 * (index % 3) / 2)
    return round(red * 255), round(green * 255), round(blue * 255)


def function_name(size: tuple[int, int]) -> str:
    """The name of the function for one (height, width) in a package with several input sizes: "size_320x480"."""
    return f"size_{size[0]}x{size[1]}"


@dataclass(frozen=True)
class ClassInfo:
    """One class: its name, how it stands in mask files, and the colour (RGB) that pictures show it in."""

    name: str
    value: MaskValue
    color: tuple[int, int, int]


@dataclass(frozen=True)
class ModelSpec:
    """The contract that travels from training to every runtime, inside the model's own file.

    Attributes:
        channels: image channels: 1 grey, 3 RGB, 4 RGBA, in this order.
        classes: the classes; a label is an index into them.
        outputs: channels of the logits: one a class, or 1 for a two-class model with a sigmoid.
        multiple: the sides of the network's input are multiples of this (2**depth).
        scale: factor on both sides of an image before the network; the mask is brought back.
        resample: Pillow filter of that resize: nearest, box, bilinear, bicubic or lanczos.
        padding: how an image is filled up, below and to the right: reflect, edge or zero.
        mean: subtracted from each channel, in units of [0, 1]; empty for none.
        std: divides each channel after that; empty for none.
        ignore_value: value in mask files that does not count (void), or None.
        background: label of the background, which mean scores leave out, or None.
        threshold: probability from which class 1 of a two-class model is chosen.
        head: what the graph returns: logits, probabilities or classmap.
        input_name: name of the graph's input.
        output_name: name of the graph's output.
        input_size: (height, width) of a graph with a fixed size, else None.
        input_sizes: all sizes of a package that has one function a size, the default's first; empty otherwise.
        label_values: grey value (0..255) of each label in the picture that a class-map graph returns; empty where
            it returns labels.
        precision: precision of the graph's arithmetic: fp32 or fp16.
        bits: of the numbers in the training images: 8, 16, or 32 for floats; an 8-bit picture input needs 8.
        training_sizes: (height, width) of network inputs seen in training, the most frequent first.
        provenance: what made this: checkpoint hash, versions, scores.
    """

    channels: int
    classes: tuple[ClassInfo, ...]
    outputs: int
    multiple: int
    scale: float = 1.0
    resample: str = "bicubic"
    padding: str = "reflect"
    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    ignore_value: MaskValue | None = None
    background: int | None = 0
    threshold: float = 0.5
    head: str = "logits"
    input_name: str = "image"
    output_name: str = "logits"
    input_size: tuple[int, int] | None = None
    input_sizes: tuple[tuple[int, int], ...] = ()
    label_values: tuple[int, ...] = ()
    precision: str = "fp32"
    bits: int = 8
    training_sizes: tuple[tuple[int, int], ...] = ()
    provenance: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        # A spec is read from files of unknown origin: every value that is later used is typed and bounded here.
        for name in ("channels", "outputs", "multiple"):
            _require(_is_whole(getattr(self, name)), f"{name} must be a whole number, not {getattr(self, name)!r}")
        for name in ("input_name", "output_name", "precision"):
            _require(isinstance(getattr(self, name), str), f"{name} must be a text, not {getattr(self, name)!r}")
        numbers = (self.scale, self.threshold, *self.mean, *self.std)
        _require(all(_is_number(n) for n in numbers), "scale, threshold, mean and std must be sensible numbers")
        _require(self.channels in (1, 3, 4), f"channels must be 1, 3 or 4, not {self.channels}")
        _require(2 <= len(self.classes) < IGNORE_LABEL, f"2 to 254 classes expected, not {len(self.classes)}")
        _require(
            self.outputs == len(self.classes) or (self.outputs == 1 and len(self.classes) == 2),
            f"{self.outputs} outputs do not fit {len(self.classes)} classes",
        )
        _require(_is_whole(self.bits) and self.bits in (8, 16, 32), f"bits must be 8, 16 or 32, not {self.bits!r}")
        _require(1 <= self.multiple <= 1024, f"multiple must be 1 to 1024, not {self.multiple}")
        _require(0 < self.scale <= 16, f"scale must be above 0 and at most 16, not {self.scale}")
        _require(0 < self.threshold < 1, f"threshold must be between 0 and 1, not {self.threshold}")
        _require(self.head in HEADS, f"head must be one of {', '.join(HEADS)}, not {self.head!r}")
        _require(self.padding in PADDINGS, f"padding must be one of {', '.join(PADDINGS)}, not {self.padding!r}")
        _require(
            self.resample in RESAMPLINGS, f"resample must be one of {', '.join(RESAMPLINGS)}, not {self.resample!r}"
        )
        _require(len(self.mean) in (0, self.channels), "mean needs one number a channel")
        _require(
            len(self.std) in (0, self.channels) and all(n > 1e-6 for n in self.std),
            "std needs one number above 0 a channel",
        )
        labels = range(len(self.classes))
        _require(
            self.background is None or (_is_whole(self.background) and self.background in labels),
            "background must be one of the labels",
        )
        self._check_sizes()
        self._check_classes()

    def _check_sizes(self) -> None:
        fixed = (*self.input_sizes, *([] if self.input_size is None else [self.input_size]))
        for size in (*self.training_sizes, *fixed):
            _require(_is_size(size), f"impossible size {size}")
        for size in fixed:
            _require(
                not any(side % self.multiple for side in size), f"input size {size} is no multiple of {self.multiple}"
            )
        _require(
            not self.input_sizes or self.input_size in self.input_sizes, "the input size is none of the input sizes"
        )
        _require(len(set(self.input_sizes)) == len(self.input_sizes), "two input sizes are the same")

    def _check_classes(self) -> None:
        values = [info.value for info in self.classes]
        for info in self.classes:
            _require(isinstance(info.name, str), f"a class's name must be a text, not {info.name!r}")
            _require(_is_mask_value(info.value), f"{info.value!r} is no mask value: 0 to {MAX_VALUE}, or an RGB colour")
            _require(_is_color(info.color), f"{info.color!r} is no RGB colour")
        _require(len({isinstance(value, tuple) for value in values}) == 1, "mask values are all grey or all colours")
        _require(len(set(values)) == len(values), "two classes have the same mask value")
        _require(self.ignore_value not in values, f"the value to ignore, {self.ignore_value}, is that of a class")
        _require(
            self.ignore_value is None or _is_mask_value(self.ignore_value), f"{self.ignore_value!r} is no mask value"
        )
        _require(
            not self.label_values or (self.head == "classmap" and len(self.label_values) == len(values)),
            "label values belong to a class map, one a class",
        )
        grey = all(_is_whole(value) and 0 <= value <= 255 for value in self.label_values)
        _require(
            grey and len(set(self.label_values)) == len(self.label_values),
            "label values must be 0 to 255, all different",
        )

    @property
    def class_names(self) -> list[str]:
        """Names of the classes, by label."""
        return [info.name for info in self.classes]

    @property
    def is_binary(self) -> bool:
        """Whether a threshold decides: one output, or two classes."""
        return len(self.classes) == 2

    def replace(self, **changes: Any) -> ModelSpec:
        """A copy with some fields changed."""
        return dataclasses.replace(self, **changes)

    def to_dict(self) -> dict[str, Any]:
        """Plain dictionaries, lists, numbers and strings, ready for JSON."""
        return {"version": SPEC_VERSION, **dataclasses.asdict(self)}

    def to_json(self) -> str:
        """The spec as one line of JSON."""
        return json.dumps(self.to_dict(), ensure_ascii=False, separators=(",", ":"))

    @classmethod
    def from_dict(cls, data: Mapping[str, Any], origin: str = "the model") -> ModelSpec:
        """Read what `to_dict` wrote; keys that this version does not know are left out.

        Args:
            data: the decoded JSON object.
            origin: the file it came from, for messages.

        Raises:
            ModelFileError: a field is missing, has the wrong type or an impossible value.
        """
        try:
            version = data["version"]
            if version > SPEC_VERSION:
                raise ModelFileError(
                    f"{origin} was made by a newer unet-edge (spec {version}, this one reads {SPEC_VERSION}): "
                    "upgrade unet-edge"
                )
            known = {f.name for f in dataclasses.fields(cls)}
            values = {key: _frozen(value) for key, value in data.items() if key in known and key != "provenance"}
            values["classes"] = tuple(
                ClassInfo(c["name"], _frozen(c["value"]), tuple(c["color"])) for c in data["classes"]
            )
            return cls(**values, provenance=dict(data.get("provenance", {})))
        except ModelFileError as error:
            raise ModelFileError(f"{origin}: {error}" if origin not in str(error) else str(error)) from None
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError, RecursionError) as error:
            raise ModelFileError(
                f"{origin} carries a damaged spec ({type(error).__name__}: {error}): export it again"
            ) from None

    @classmethod
    def from_json(cls, text: str, origin: str = "the model") -> ModelSpec:
        """Read what `to_json` wrote. Raises `ModelFileError` as `from_dict` does."""
        try:
            data = json.loads(text)
        except (TypeError, ValueError, RecursionError) as error:
            raise ModelFileError(f"{origin} carries a damaged spec ({error}): export it again") from None
        return cls.from_dict(data, origin)


def _frozen(value: Any) -> Any:
    return tuple(_frozen(item) for item in value) if isinstance(value, list | tuple) else value


def _is_whole(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and -1e6 < value < 1e6


def _is_size(value: Any) -> bool:
    whole = isinstance(value, tuple) and len(value) == 2 and all(_is_whole(side) and side >= 1 for side in value)
    return whole and math.prod(value) <= MAX_INPUT


def _is_color(value: object) -> bool:
    return isinstance(value, tuple) and len(value) == 3 and all(_is_whole(c) and 0 <= c <= 255 for c in value)


def _is_mask_value(value: object) -> bool:
    return _is_color(value) or (isinstance(value, int) and _is_whole(value) and 0 <= value <= MAX_VALUE)


def _require(condition: bool, message: str) -> None:
    if not condition:
        raise ModelFileError(message)
