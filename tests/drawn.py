"""Drawn pairs of pictures and masks that a network learns in seconds."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image

VALUES = (0, 100, 255)


def draw_pair(seed: int, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A noisy RGB picture with a red disc and a blue bar, and its mask with the values of `VALUES`."""
    rng = np.random.default_rng(seed)
    height, width = size
    y, x = np.mgrid[:height, :width]
    mask = np.zeros(size, np.uint8)
    disc = (y - rng.integers(12, height - 12)) ** 2 + (x - rng.integers(12, width - 12)) ** 2 < 90
    left = rng.integers(0, width - 8)
    mask[:, left : left + 6] = 255
    mask[disc] = 100
    image = rng.integers(60, 120, (*size, 3))
    image[mask == 100] += (110, 0, 0)
    image[mask == 255] += (0, 0, 110)
    return image.clip(0, 255).astype(np.uint8), mask


def write_pairs(folder: Path, count: int = 12, size: tuple[int, int] = (48, 64)) -> tuple[Path, Path]:
    images, masks = folder / "images", folder / "masks"
    images.mkdir(parents=True)
    masks.mkdir()
    for number in range(count):
        image, mask = draw_pair(number, size)
        Image.fromarray(image).save(images / f"photo {number:02}.png")
        Image.fromarray(mask).save(masks / f"photo {number:02}_mask.png")
    return images, masks
