"""What one image or mask file holds, found by decoding it once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unet_edge_runtime.image import MAX_PIXELS, read_image
from unet_edge_runtime.mask import read_mask, runs

from .cache import FactsCache

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["JPEG_SUFFIXES", "KEPT_VALUES", "ImageFacts", "MaskFacts", "image_facts", "mask_facts"]

JPEG_SUFFIXES = {".jpg", ".jpeg", ".jpe", ".jfif"}
KEPT_VALUES = 1024  # of one mask; a mask with more is no class mask, and only their number matters


@dataclass(frozen=True)
class ImageFacts:
    """(height, width) after EXIF orientation, the channels that it asks for (1 or 3), and the bits of a number."""

    size: tuple[int, int]
    channels: int
    bits: int = 8


@dataclass(frozen=True)
class MaskFacts:
    """(height, width), the number of distinct values, and pixels by packed value, of `KEPT_VALUES` at most."""

    size: tuple[int, int]
    distinct: int
    counts: dict[int, int]


def image_facts(cache: FactsCache, path: Path) -> ImageFacts:
    """Facts of an image, which is decoded in full unless the cache knows it. Raises `InputError` as `read_image`."""
    saved = cache.get("image", path)
    if isinstance(saved, list) and len(saved) == 4 and _whole(saved, 1) and saved[2] in (1, 3):
        return ImageFacts((saved[0], saved[1]), saved[2], saved[3])
    facts = _draft_facts(path)
    if facts is None:
        array = read_image(path)
        facts = ImageFacts((array.shape[0], array.shape[1]), 1 if array.ndim == 2 else 3, 8 * array.itemsize)
    cache.put("image", path, [*facts.size, facts.channels, facts.bits])
    return facts


def _draft_facts(path: Path) -> ImageFacts | None:
    """Facts of a JPEG, decoded at an eighth of its size: the whole file is read, in a seventh of the time.

    None for other formats, and for every trouble: `read_image` then says what it is.
    """
    if path.suffix.lower() not in JPEG_SUFFIXES:
        return None
    try:
        with Image.open(path) as image:
            width, height = image.size
            channels = 1 if image.mode == "L" else 3
            if image.format != "JPEG" or width * height > MAX_PIXELS:
                return None
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
            image.draft(None, (1, 1))
            image.load()
    except Exception:
        return None
    return ImageFacts((width, height) if turned else (height, width), channels)


def mask_facts(cache: FactsCache, path: Path) -> MaskFacts:
    """Facts of a mask, likewise. Raises `InputError` as `read_mask`."""
    if (facts := _saved_mask(cache.get("mask", path))) is None:
        mask = read_mask(path)
        numbers, counts = _count(mask)
        kept = dict(zip(numbers.tolist()[:KEPT_VALUES], counts.tolist()[:KEPT_VALUES], strict=True))
        facts = MaskFacts((mask.shape[0], mask.shape[1]), len(numbers), kept)
        cache.put("mask", path, [*facts.size, facts.distinct, list(kept), list(kept.values())])
    return facts


def _saved_mask(saved: Any) -> MaskFacts | None:
    if not (isinstance(saved, list) and len(saved) == 5 and _whole(saved[:3], 1)):
        return None
    height, width, distinct, numbers, counts = saved
    if not (isinstance(numbers, list) and isinstance(counts, list) and len(numbers) == len(counts)):
        return None
    if not (_whole(numbers, 0) and _whole(counts, 1) and len(numbers) == min(distinct, KEPT_VALUES)):
        return None
    if distinct <= KEPT_VALUES and sum(counts) != height * width:
        return None
    return MaskFacts((height, width), distinct, dict(zip(numbers, counts, strict=True)))


def _whole(values: list[Any], least: int) -> bool:
    return all(type(value) is int and value >= least for value in values)


def _count(mask: NDArray[np.unsignedinteger]) -> tuple[NDArray[np.integer], NDArray[np.int64]]:
    """Distinct values and their pixels: like np.unique, but over runs, as masks have few."""
    values, lengths = runs(mask)
    numbers, places = np.unique(values, return_inverse=True)
    return numbers, np.bincount(places.ravel(), weights=lengths, minlength=len(numbers)).astype(np.int64)
