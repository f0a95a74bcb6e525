"""The picture that is timed: a real one brought to the size that a network input is to have, or a drawn one."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import MAX_PIXELS, to_uint8
from unet_edge_runtime.transform import scaled_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["draw_picture", "fit_image", "size_for"]


def size_for(network: tuple[int, int], scale: float) -> tuple[int, int]:
    """(height, width) of the smallest image that becomes the network's input at this scale."""
    height, width = (math.ceil(side / scale) for side in network)
    # Rounding errors of the division can leave a side one short.
    return tuple(  # type: ignore[return-value]
        side if scaled_size((side, 1), scale)[0] == wanted else side + 1
        for side, wanted in zip((height, width), network, strict=True)
    )


def fit_image(image: NDArray[np.generic], network: tuple[int, int], scale: float) -> NDArray[np.generic]:
    """Bring an image to the size that becomes `network` before padding, so that all stages are as long as in use.

    Args:
        image: (H, W[, C]) as `read_image` returns.
        network: (height, width) of the network's input.
        scale: of the model's spec.

    Returns:
        An image of the same kind; uint8 where its size changes.

    Raises:
        InputError: a scale above 1 that never gives this size, or more pixels than an image may have.
    """
    size = size_for(network, scale)
    _check_size(size)
    if scaled_size(size, scale) != network:
        raise InputError(f"no image becomes {network[0]}x{network[1]} at scale {scale:g}: choose another --sizes")
    if image.shape[:2] == size:
        return image
    resized = Image.fromarray(to_uint8(image)).resize((size[1], size[0]), Image.Resampling.BICUBIC)
    return np.asarray(resized)


def draw_picture(size: tuple[int, int]) -> NDArray[np.uint8]:
    """Smooth blobs with a little noise, (height, width, 3), the same in every run. Raises `InputError`: too large."""
    _check_size(size)
    generator = np.random.default_rng(0)
    blobs = generator.integers(0, 256, (6, 8, 3), np.uint8)
    smooth = np.asarray(Image.fromarray(blobs).resize((size[1], size[0]), Image.Resampling.BICUBIC))
    noise = generator.integers(-8, 9, smooth.shape, np.int16)
    return (smooth + noise).clip(0, 255).astype(np.uint8)


def _check_size(size: tuple[int, int]) -> None:
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"the network's input asks for an image of {size[0]}x{size[1]}: choose smaller --sizes")
