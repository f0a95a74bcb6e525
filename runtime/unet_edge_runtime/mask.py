"""Mask files: read into values, values to labels, labels back to values, and pictures of labels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .errors import InputError
from .image import decode, read_npy, to_uint8
from .spec import IGNORE_LABEL, MAX_VALUE, MaskValue, ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["labels_from_mask", "mask_image", "overlay", "pack", "read_mask", "runs", "side_by_side", "unpack"]

_BITS = 8
_COLOR = 1 << 24  # set in a packed colour, so that colour (0, 0, 5) and grey value 5 stay apart


def read_mask(path: Path | str) -> NDArray[np.unsignedinteger]:
    """Read a mask file as it stands: palette indices and grey values as numbers, colours packed (see `pack`).

    Returns:
        (H, W): numbers as uint8 or uint16, colours as uint32. A 1-bit mask has values 0 and 1.

    Raises:
        InputError: missing, unreadable, of a type that cannot hold classes, or with values outside 0..65535.
    """
    path = Path(path)
    if path.suffix.lower() == ".npy":
        array = read_npy(path)
    else:
        image = decode(path)
        if image.mode in ("LA", "La", "PA"):
            image = image.getchannel(0)
        elif image.mode not in ("1", "L", "P", "I", "I;16", "I;16B", "I;16L", "F", "RGB"):
            image = image.convert("RGB")
        array = np.asarray(image)
    if array.ndim == 3 and array.shape[2] == 1:
        array = array[:, :, 0]
    if array.ndim == 3 and array.shape[2] in (3, 4) and array.dtype == np.uint8:
        packed = np.full(array.shape[:2], _COLOR >> 3 * _BITS, np.uint32)
        for channel in range(3):
            packed <<= _BITS
            packed |= array[:, :, channel].astype(np.uint8, copy=False)
        return packed
    if array.ndim != 2 or array.dtype.kind not in "bui":
        raise InputError(
            f"{path}: a mask must hold one whole number or one 8-bit RGB colour a pixel, "
            f"not {array.dtype} of shape {array.shape}"
        )
    if not array.size or array.min() < 0 or array.max() > MAX_VALUE:
        held = f"{array.min()} to {array.max()}" if array.size else "nothing"
        raise InputError(f"{path}: holds {held}; mask values are 0 to {MAX_VALUE}: renumber them")
    return array.astype(np.uint8 if array.dtype.itemsize == 1 else np.uint16, copy=False)


def pack(value: MaskValue) -> int:
    """The number by which `read_mask` stands for a mask value: itself, or a colour in 25 bits."""
    if isinstance(value, tuple):
        return _COLOR | value[0] << 2 * _BITS | value[1] << _BITS | value[2]
    return value


def unpack(number: int) -> MaskValue:
    """The inverse of `pack`."""
    return (number >> 16 & 255, number >> 8 & 255, number & 255) if number & _COLOR else number


def runs(mask: NDArray[np.integer]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Values and lengths of runs of equal pixels, row after row; of these a mask has a hundredth of its pixels."""
    flat = mask.ravel()
    starts = np.concatenate([[0], np.flatnonzero(flat[1:] != flat[:-1]) + 1])
    return flat[starts], np.diff(starts, append=flat.size)


def labels_from_mask(mask: NDArray[np.integer], spec: ModelSpec, path: Path | str = "the mask") -> NDArray[np.uint8]:
    """Turn mask values into labels.

    Args:
        mask: (H, W) as `read_mask` returns.
        spec: its classes' values and `ignore_value` are used.
        path: the file, for messages.

    Returns:
        (H, W) labels; `IGNORE_LABEL` where the mask has the value to ignore.

    Raises:
        InputError: the mask holds a value that belongs to no class.
    """
    numbers = [pack(info.value) for info in spec.classes]
    labels = list(range(len(numbers)))
    if spec.ignore_value is not None:
        numbers.append(pack(spec.ignore_value))
        labels.append(IGNORE_LABEL)
    order = np.argsort(numbers)
    known = np.asarray(numbers)[order]
    held, lengths = runs(mask)
    place = np.minimum(np.searchsorted(known, held), len(known) - 1)
    unseen = known[place] != held
    if unseen.any():
        values = ", ".join(str(unpack(int(n))) for n in np.unique(held[unseen])[:5])
        classes = ", ".join(str(info.value) for info in spec.classes[:12])
        raise InputError(
            f"{path}: holds {values}, which is no class of the model (its mask values: {classes}"
            f"{', ...' if len(spec.classes) > 12 else ''}): correct the mask, or use the model of these masks"
        )
    return np.repeat(np.asarray(labels, np.uint8)[order][place], lengths).reshape(mask.shape)


def mask_image(labels: NDArray[np.uint8], spec: ModelSpec) -> Image.Image:
    """Write labels back with the data set's own values, visible to the eye where the values allow it.

    Colours give an RGB image; {0, 1} a 1-bit one; grey values that a person can see a grey one; small values
    (class indices) a palette one, whose pixels keep the values and whose palette shows the class colours;
    values above 255 a 16-bit one.

    Args:
        labels: (H, W); `IGNORE_LABEL` becomes the value to ignore.
        spec: values and colours of the classes.
    """
    values: list[MaskValue] = [info.value for info in spec.classes]
    if any(isinstance(value, tuple) for value in values):
        table = np.zeros((256, 3), np.uint8)
        for label, value in enumerate(values):
            table[label] = value
        if isinstance(spec.ignore_value, tuple):
            table[IGNORE_LABEL] = spec.ignore_value
        return Image.fromarray(table[labels])
    numbers = [value for value in values if isinstance(value, int)]
    ignored = spec.ignore_value if isinstance(spec.ignore_value, int) else 0
    wide = max(*numbers, ignored) > 255
    lut = np.zeros(256, np.uint16 if wide else np.uint8)
    lut[: len(numbers)] = numbers
    lut[IGNORE_LABEL] = ignored
    if numbers == [0, 1] and spec.ignore_value is None:
        return Image.fromarray(labels == 1)
    image = Image.fromarray(lut[labels])
    if max(numbers) < 128 and not wide:
        image.putpalette(_palette(spec))
    return image


def overlay(
    image: NDArray[np.generic], labels: NDArray[np.uint8], spec: ModelSpec, opacity: float = 0.5
) -> Image.Image:
    """The image with every class but the background tinted in its colour.

    Args:
        image: (H, W[, C]) as `read_image` returns.
        labels: (H, W).
        spec: colours and background.
        opacity: of the tint, 0..1.
    """
    table = np.zeros((256, 3), np.uint8)
    weight = np.zeros(256, np.uint8)
    for label, info in enumerate(spec.classes):
        table[label], weight[label] = info.color, 0 if label == spec.background else round(opacity * 255)
    tint, alpha = Image.fromarray(table[labels]), Image.fromarray(weight[labels])
    return Image.composite(tint, Image.fromarray(to_uint8(image)), alpha)


def side_by_side(*pictures: Image.Image) -> Image.Image:
    """Pictures of one height in a row, on white."""
    gap = 4  # pixels
    width = sum(picture.width for picture in pictures) + gap * (len(pictures) - 1)
    sheet = Image.new("RGB", (width, pictures[0].height), "white")
    left = 0
    for picture in pictures:
        sheet.paste(picture, (left, 0))
        left += picture.width + gap
    return sheet


def _palette(spec: ModelSpec) -> list[int]:
    colors = np.zeros((256, 3), np.uint8)
    colors[:] = np.arange(256)[:, None]
    for info in spec.classes:
        if isinstance(info.value, int):
            colors[info.value] = info.color
    return [int(c) for c in colors.ravel()]
