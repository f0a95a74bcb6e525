"""Pictures and arrays in and out of a program, as Core ML's `predict` takes and returns them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from unet_edge_runtime.errors import InputError

from .features import Feature
from .weights import ELEMENTS, damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["to_feature", "to_tensor"]

_MODES = {"RGB": "RGB", "BGR": "RGB", "GRAYSCALE": "L", "GRAYSCALE_FLOAT16": "F"}


def to_tensor(value: Any, feature: Feature, path: Path) -> Tensor:
    """What is fed to an input, as the program sees it.

    Args:
        value: for an image a PIL picture, or an array (H, W, 3) RGB or (H, W) grey with values from 0 to 255; for an
            array an array of its shape.
        feature: the input.
        path: the package, for messages.

    Returns:
        (1, C, H, W) float32 in the image's own channel order, or an array of the feature's element type with
        floating point in fp32.

    Raises:
        InputError: wrong kind, mode or shape.
    """
    where = f"{path}: input {feature.name}"
    if feature.kind == "image":
        return _from_picture(value, feature, where)
    if feature.kind != "array":
        raise InputError(f"{where} is neither a picture nor an array: segmentation models have no such input")
    try:
        array = np.asarray(value).astype(ELEMENTS[feature.dtype].type)
    except (TypeError, ValueError) as error:
        raise InputError(f"{where} takes numbers ({error})") from None
    if not feature.accepts(array.shape):
        raise InputError(f"{where} takes the shape {_shapes(feature)}, not {array.shape}")
    # A copy: the caller's array may be read-only, or change while the result is still a view of it.
    return torch.from_numpy(np.array(array, np.float32 if array.dtype.kind == "f" else None, order="C"))


def to_feature(value: Any, feature: Feature, path: Path, wide: bool = False) -> NDArray[np.generic]:
    """A program's result as the output that it is declared to be.

    Args:
        value: of the program; (1, C, H, W) for an image.
        feature: the output.
        path: the package, for messages.
        wide: leave floating point in float32.

    Returns:
        An array of the declared element type; of an image (H, W, 3) RGB or (H, W) uint8, rounded and clipped to
        0..255, or (H, W) float16 as it is.

    Raises:
        ModelFileError: the result is no image of that kind.
    """
    if not isinstance(value, Tensor) or feature.kind == "other":
        raise damaged(path, f"the output {feature.name[:60]!r} is neither a picture nor an array")
    array: NDArray[Any] = value.numpy()
    if feature.kind == "array":
        same = wide and array.dtype.kind == "f"
        return array.astype(array.dtype if same else ELEMENTS[feature.dtype].type, order="C", copy=False)
    if array.ndim != 4 or array.shape[:2] != (1, feature.channels):
        raise damaged(path, f"the output {feature.name[:60]!r} is no {feature.color} picture, but {array.shape}")
    if feature.color == "GRAYSCALE_FLOAT16":
        return array[0, 0].astype(np.float16)
    pixels = np.clip(np.rint(np.nan_to_num(array[0].astype(np.float32))), 0, 255).astype(np.uint8)
    if feature.channels == 1:
        return pixels[0]
    return np.ascontiguousarray((pixels[::-1] if feature.color == "BGR" else pixels).transpose(1, 2, 0))


def _from_picture(value: Any, feature: Feature, where: str) -> Tensor:
    if isinstance(value, Image.Image) and value.mode != _MODES[feature.color]:
        wanted = _MODES[feature.color]
        raise InputError(f"{where} takes a picture of mode {wanted}, not {value.mode}: use .convert({wanted!r})")
    pixels = np.asarray(value)
    sides = 3 if feature.channels == 3 else 2
    if pixels.dtype.kind not in "buif" or pixels.ndim != sides or (sides == 3 and pixels.shape[2] != 3):
        shape = "(H, W, 3) RGB" if sides == 3 else "(H, W)"
        raise InputError(f"{where} takes a picture or an array {shape}, not {pixels.shape} {pixels.dtype}")
    if not feature.accepts(pixels.shape[:2]):
        raise InputError(f"{where} takes pictures of (height, width) {_shapes(feature)}, not {pixels.shape[:2]}")
    planes = pixels.transpose(2, 0, 1) if sides == 3 else pixels[None]
    planes = planes[::-1] if feature.color == "BGR" else planes
    return torch.from_numpy(np.array(planes[None], np.float32, order="C"))


def _shapes(feature: Feature) -> str:
    if feature.choices:
        return " or ".join(str(choice) for choice in feature.choices[:8])
    if feature.ranges:
        sides = [f"{low}" if low == high else f"{low}..{high or ''}" for low, high in feature.ranges]
        return f"({', '.join(sides)})"
    return str(feature.shape)
