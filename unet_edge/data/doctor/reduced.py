"""Pairs at a size at which thousands of them can be compared."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unet_edge.data.facts import JPEG_SUFFIXES
from unet_edge.data.nearest import mask_at
from unet_edge_runtime.image import MAX_PIXELS, read_image
from unet_edge_runtime.mask import read_mask

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["SIDE", "as_picture", "averaged", "read_quickly", "reduced", "reduced_labels"]

SIDE = 256  # pixels of the longer side, at most
ORIENTATION = 0x0112  # of EXIF


def read_quickly(path: Path, side: int = SIDE) -> tuple[tuple[int, int], NDArray[np.generic]]:
    """The image's own (height, width), and its pixels: of a JPEG at a fraction of its size, of at least `side`.

    Raises:
        InputError: as `read_image`.
    """
    if path.suffix.lower() in JPEG_SUFFIXES:
        try:
            with Image.open(path) as image:
                size = image.height, image.width
                upright = image.getexif().get(ORIENTATION, 1) == 1
                if image.format == "JPEG" and upright and size[0] * size[1] <= MAX_PIXELS:
                    image.draft(None, (side, side))
                    return size, np.asarray(image.convert("RGB"))
        except Exception:
            pass  # whatever a damaged file makes Pillow raise: `read_image` says what it is
    array = read_image(path)
    return (array.shape[0], array.shape[1]), array


def as_picture(array: NDArray[np.generic]) -> NDArray[np.float32]:
    """(H, W, 3) from 0 to 255, of an array as `read_image` returns it."""
    unit = {1: 1.0, 2: 255 / 65535, 4: 255.0}[array.itemsize]
    picture = array.astype(np.float32) * np.float32(unit)
    return np.repeat(picture[:, :, None], 3, axis=2) if picture.ndim == 2 else picture[:, :, :3]


def averaged(picture: NDArray[np.float32], size: tuple[int, int]) -> NDArray[np.float32]:
    """(h, w, C) brought to (height, width, C): each new pixel is the mean of those it covers."""
    planes = [np.ascontiguousarray(picture[:, :, channel]) for channel in range(picture.shape[2])]
    box = Image.Resampling.BOX
    return np.stack([np.asarray(Image.fromarray(plane).resize(size[::-1], box)) for plane in planes], axis=2)


def reduced(picture: NDArray[np.float32], side: int = SIDE) -> NDArray[np.float32]:
    """A picture with at most `side` pixels on its longer side."""
    height, width = picture.shape[:2]
    share = side / max(height, width)
    if share >= 1:
        return picture
    return averaged(picture, (max(1, round(height * share)), max(1, round(width * share))))


def reduced_labels(path: Path, shape: tuple[int, ...]) -> NDArray[np.unsignedinteger]:
    """A mask's file at (height, width). Raises `InputError` as `read_mask`."""
    return mask_at((shape[0], shape[1]), read_mask(path))
