"""What a model takes and returns, as its description declares it: pictures and arrays."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .schema import ARRAY_TYPES, COLOR_SPACES
from .weights import damaged

__all__ = ["Feature", "read_features"]

_MAX_CHOICES = 4096
Range = tuple[int, int | None]


@dataclass(frozen=True)
class Feature:
    """One input or output.

    Attributes:
        name: of the feature, and of the program's value.
        kind: image, array, or other (numbers, texts, dictionaries: nothing that a segmenter has).
        dtype: of an array's elements: fp16, fp32, fp64, int32, int8; empty for the rest.
        color: of an image: RGB, BGR, GRAYSCALE or GRAYSCALE_FLOAT16; empty for the rest.
        shape: default shape of an array, which outputs may leave empty; (height, width) of an image.
        choices: all shapes that may be given, where they are enumerated.
        ranges: (least, most) of each side, where any size in between may be given; most is None for no limit.
        optional: whether it may be left out.
        description: for people.
    """

    name: str
    kind: str
    dtype: str = ""
    color: str = ""
    shape: tuple[int, ...] = ()
    choices: tuple[tuple[int, ...], ...] = ()
    ranges: tuple[Range, ...] = ()
    optional: bool = False
    description: str = ""

    @property
    def is_flexible(self) -> bool:
        """Whether more than one shape may be given."""
        return len(self.choices) > 1 or any(low != high for low, high in self.ranges)

    @property
    def channels(self) -> int:
        """Channels of an image."""
        return 3 if self.color in ("RGB", "BGR") else 1

    def accepts(self, shape: tuple[int, ...]) -> bool:
        """Whether this shape, (height, width) for an image, may be given."""
        if self.choices:
            return shape in self.choices
        if self.ranges:
            sides = zip(self.ranges, shape, strict=False)
            return len(shape) == len(self.ranges) and all(
                low <= side and (high is None or side <= high) for (low, high), side in sides
            )
        return shape == self.shape


def read_features(protos: Any, path: Path) -> tuple[Feature, ...]:
    """Read `FeatureDescription` messages.

    Raises:
        ModelFileError: two have one name, an enumeration is unknown, or a shape is impossible.
    """
    found = tuple(_read(proto, path) for proto in protos)
    if len({feature.name for feature in found}) != len(found):
        raise damaged(path, "two inputs or two outputs have the same name")
    return found


def _read(proto: Any, path: Path) -> Feature:
    common = {
        "name": proto.name,
        "optional": proto.type.isOptional,
        "description": proto.shortDescription,
    }
    kind = proto.type.WhichOneof("Type")
    if kind == "imageType":
        return Feature(kind="image", **common, **_image(proto.type.imageType, path))
    if kind == "multiArrayType":
        return Feature(kind="array", **common, **_array(proto.type.multiArrayType, path))
    return Feature(kind="other", **common)


def _image(image: Any, path: Path) -> dict[str, Any]:
    if image.colorSpace not in COLOR_SPACES:
        raise damaged(path, f"an image has the unknown colour space {image.colorSpace}")
    size_range, sizes = image.imageSizeRange, image.enumeratedSizes.sizes
    ranged = image.WhichOneof("SizeFlexibility") == "imageSizeRange"
    return {
        "color": COLOR_SPACES[image.colorSpace],
        "shape": _shape((image.height, image.width), path),
        "choices": _choices([(size.height, size.width) for size in sizes[:_MAX_CHOICES]], len(sizes), path),
        "ranges": _ranges([size_range.heightRange, size_range.widthRange], path) if ranged else (),
    }


def _array(array: Any, path: Path) -> dict[str, Any]:
    if array.dataType not in ARRAY_TYPES:
        raise damaged(path, f"an array has the unknown element type {array.dataType}")
    shapes = array.enumeratedShapes.shapes
    ranged = array.WhichOneof("ShapeFlexibility") == "shapeRange"
    return {
        "dtype": ARRAY_TYPES[array.dataType],
        "shape": _shape(array.shape, path),
        "choices": _choices([shape.shape for shape in shapes[:_MAX_CHOICES]], len(shapes), path),
        "ranges": _ranges(array.shapeRange.sizeRanges, path) if ranged else (),
    }


def _shape(sides: Any, path: Path) -> tuple[int, ...]:
    if len(sides) > 8 or any(not 0 <= side < 1 << 31 for side in sides):
        raise damaged(path, "an input or output has an impossible shape")
    return tuple(int(side) for side in sides)


def _choices(shapes: list[Any], count: int, path: Path) -> tuple[tuple[int, ...], ...]:
    if count > _MAX_CHOICES:
        raise damaged(path, f"an input enumerates {count} shapes")
    return tuple(_shape(shape, path) for shape in shapes)


def _ranges(ranges: Any, path: Path) -> tuple[Range, ...]:
    if len(ranges) > 8:
        raise damaged(path, "an input or output has an impossible shape")
    return tuple((each.lowerBound, None if each.upperBound < 0 else each.upperBound) for each in ranges)
