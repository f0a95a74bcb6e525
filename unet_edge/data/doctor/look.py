"""What the doctor wants to know of one pair, found by decoding both files once, and remembered."""

from __future__ import annotations

import base64
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge.data.cache import FactsCache
from unet_edge.data.facts import JPEG_SUFFIXES
from unet_edge.data.nearest import mask_at
from unet_edge.data.pairing import Pair
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.mask import read_mask

from .components import object_areas
from .fit import Fit, edge_ranks, mask_edges, measure_fit
from .reduced import as_picture, averaged, read_quickly, reduced

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["MANY_VALUES", "THUMB", "ImageLook", "Look", "MaskLook", "examine"]

THUMB = 16  # pixels of both sides of what images are compared by
MANY_VALUES = 64  # a picture with more is no mask
ROWS = 32  # that tell a photo from a mask
SMALL_AREAS = 256  # different areas that are kept of each class in a mask, the smallest ones
FORMAT = 3  # of what is remembered


@dataclass(frozen=True)
class ImageLook:
    """What an image file holds; brightness from 0 to 255.

    Attributes:
        sha256: of the file.
        bits: 32 hexadecimal digits, the difference hash: for each of 8x8 areas, whether it is brighter than its left
            neighbour, and for each whether it is brighter than its upper one.
        thumb: THUMB x THUMB x 3 bytes in base64.
        dark: what 1 in 200 pixels stays below.
        bright: what 1 in 200 pixels lies above.
        grey: stored as colour, but all three channels are equal.
        many_values: more than `MANY_VALUES` different pixels, as a photo has.
    """

    sha256: str
    bits: str
    thumb: str
    dark: float
    bright: float
    grey: bool
    many_values: bool

    def thumbnail(self) -> NDArray[np.uint8]:
        """(THUMB, THUMB, 3)."""
        return np.frombuffer(base64.b64decode(self.thumb), np.uint8).reshape(THUMB, THUMB, 3)


@dataclass(frozen=True)
class MaskLook:
    """What a mask file holds.

    Attributes:
        sha256: of the file.
        objects: number of connected objects by packed value; empty where there are too many values.
        small: how many objects have which area in pixels, by packed value; of `SMALL_AREAS` areas, the smallest.
    """

    sha256: str
    objects: dict[int, int]
    small: dict[int, dict[int, int]]


@dataclass(frozen=True)
class Look:
    """A pair with what was found; None where a file cannot be read, and for a fit that cannot be measured."""

    pair: Pair
    image: ImageLook | None = None
    mask: MaskLook | None = None
    fit: Fit | None = None


def examine(cache: FactsCache, pair: Pair) -> Look:
    """Look at a pair. Files that cannot be read are no news here: the scan tells them."""
    try:
        if saved := _saved(pair, cache.get("doctor", pair.image), cache.get("doctor", pair.mask)):
            return saved
        image, size, picture = _look_at_image(pair.image)
        mask, values = _look_at_mask(pair.mask)
    except (InputError, OSError):
        return Look(pair)
    fit = None
    if mask.objects and size == values.shape:
        fit = measure_fit(edge_ranks(picture), mask_edges(mask_at((picture.shape[0], picture.shape[1]), values)))
    cache.put("doctor", pair.image, [FORMAT, asdict(image)])
    # A fit is of two files: it counts for an image of this content only.
    cache.put("doctor", pair.mask, [FORMAT, asdict(mask), image.sha256, asdict(fit) if fit else None])
    return Look(pair, image, mask, fit)


def _look_at_image(path: Path) -> tuple[ImageLook, tuple[int, int], NDArray[np.float32]]:
    size, array = read_quickly(path)
    picture = reduced(as_picture(array))
    grey = picture.mean(axis=2)
    dark, bright = np.percentile(grey, [0.5, 99.5])
    thumb = averaged(picture, (THUMB, THUMB)).round().clip(0, 255).astype(np.uint8)
    look = ImageLook(
        sha256=sha256_of(path),
        bits=_difference_hash(grey),
        thumb=base64.b64encode(thumb.tobytes()).decode("ascii"),
        dark=round(float(dark), 2),
        bright=round(float(bright), 2),
        grey=array.ndim == 3 and bool((array[:, :, 1:3] == array[:, :, :1]).all()),
        many_values=path.suffix.lower() in JPEG_SUFFIXES or _has_many(array),
    )
    return look, size, picture


def _look_at_mask(path: Path) -> tuple[MaskLook, NDArray[np.unsignedinteger]]:
    mask = read_mask(path)
    if _has_many(mask):
        return MaskLook(sha256_of(path), {}, {}), mask
    objects, small = {}, {}
    for value, areas in object_areas(mask).items():
        numbers, counts = np.unique(areas, return_counts=True)
        objects[value] = len(areas)
        small[value] = dict(zip(numbers[:SMALL_AREAS].tolist(), counts[:SMALL_AREAS].tolist(), strict=True))
    return MaskLook(sha256_of(path), objects, small), mask


def _difference_hash(grey: NDArray[np.float32]) -> str:
    across, down = (averaged(grey[:, :, None], size)[:, :, 0] for size in ((8, 9), (9, 8)))
    bits = np.concatenate([(across[:, 1:] > across[:, :-1]).ravel(), (down[1:] > down[:-1]).ravel()])
    return np.packbits(bits).tobytes().hex()


def _has_many(array: NDArray[np.generic]) -> bool:
    """Whether rows all over an image or a mask hold more than `MANY_VALUES` different pixels."""
    rows = array[:: max(1, array.shape[0] // ROWS)]
    if rows.ndim == 3:
        rows = rows[:, :, :3].astype(np.float64) @ np.array([1, 1 << 16, 1 << 32])
    return len(np.unique(rows)) > MANY_VALUES


def _saved(pair: Pair, image: Any, mask: Any) -> Look | None:
    """What is remembered of a pair, if it is whole; the file it was kept in may have been damaged."""
    try:
        if image[0] != FORMAT or mask[0] != FORMAT or mask[2] != image[1]["sha256"]:
            return None
        found = ImageLook(**image[1])
        bytes.fromhex(found.bits), found.thumbnail()
        held = MaskLook(
            str(mask[1]["sha256"]),
            {int(value): int(count) for value, count in mask[1]["objects"].items()},
            {
                int(value): {int(area): int(count) for area, count in areas.items()}
                for value, areas in mask[1]["small"].items()
            },
        )
        fit = (
            None if mask[3] is None else Fit(**{**mask[3], **{key: tuple(mask[3][key]) for key in ("move", "turned")}})
        )
    except (TypeError, ValueError, KeyError, IndexError, AttributeError):
        return None
    return Look(pair, found, held, fit)
