"""Large JPEG files that shrink while they are decoded: faster, with slightly other pixels."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image, ImageOps
from torch.nn import functional as F

from unet_edge_runtime.image import MAX_PIXELS, read_image, with_channels
from unet_edge_runtime.transform import bring_to_scale, scaled_size

from .facts import JPEG_SUFFIXES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_edge_runtime.spec import ModelSpec

__all__ = ["read_scaled"]

_ANTIALIASED = ("bilinear", "bicubic")  # filters that torch computes as Pillow does, up to one grey level


def read_scaled(path: Path, spec: ModelSpec) -> NDArray[np.generic]:
    """What `bring_to_scale(read_image(path), spec)` gives, for training only: with slightly other pixels.

    The JPEG decoder leaves out frequencies that the smaller image could not show; torch's resize is vectorised.

    Returns:
        (h, w), or (h, w, C) for more than one channel.

    Raises:
        InputError: as `read_image` and `bring_to_scale`.
    """
    found = _draft(path, spec) if path.suffix.lower() in JPEG_SUFFIXES else None
    image, size = found or (read_image(path), None)
    size = size or scaled_size(image.shape[:2], spec.scale)
    shrinks = size[0] < image.shape[0] and size[1] < image.shape[1]
    if image.dtype != np.uint8 or spec.resample not in _ANTIALIASED or not (shrinks or found):
        return bring_to_scale(image, spec)
    return _resized(with_channels(image, spec.channels), size, spec.resample)


def _draft(path: Path, spec: ModelSpec) -> tuple[NDArray[np.uint8], tuple[int, int]] | None:
    """The image at a half, a quarter or an eighth, and the (height, width) it shall have; None for every trouble.

    `read_image` then says what it is.
    """
    try:
        with Image.open(path) as image:
            width, height = image.size
            if image.format != "JPEG" or image.mode not in ("L", "RGB"):
                return None
            if width * height > MAX_PIXELS or spec.scale >= 1:  # refused, or nothing to gain
                return None
            turned = image.getexif().get(0x0112, 1) >= 5  # EXIF orientations 5 to 8 swap the sides
            size = scaled_size((width, height) if turned else (height, width), spec.scale)
            image.draft(image.mode, size if turned else (size[1], size[0]))
            return np.asarray(ImageOps.exif_transpose(image)), size
    except Exception:
        return None


def _resized(image: NDArray[np.generic], size: tuple[int, int], resample: str) -> NDArray[np.generic]:
    if image.shape[:2] == size:
        return image
    planes = torch.from_numpy(np.array(image)[:, :, None] if image.ndim == 2 else np.array(image)).permute(2, 0, 1)
    resized = F.interpolate(planes[None], size, mode=resample, antialias=True)[0].permute(1, 2, 0).numpy()
    return resized[:, :, 0] if image.ndim == 2 else resized
