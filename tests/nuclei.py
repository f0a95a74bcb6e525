"""A drawn microscope image: bright discs on a dark, noisy ground."""

from __future__ import annotations

import numpy as np
from PIL import Image, ImageFilter


def draw_nuclei(size: tuple[int, int] = (192, 256), seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """An RGB image, and where its nuclei are (bool)."""
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: size[0], : size[1]]
    truth, grey = np.zeros(size, bool), np.full(size, 12.0)
    for row in range(24, size[0] - 16, 48):
        for column in range(24, size[1] - 16, 48):
            cy, cx = row + rng.integers(-6, 7), column + rng.integers(-6, 7)
            disc = ((y - cy) / rng.uniform(9, 12)) ** 2 + ((x - cx) / rng.uniform(9, 12)) ** 2 < 1
            truth |= disc
            grey[disc] = rng.uniform(90, 170)
    blurred = np.asarray(Image.fromarray(grey.astype(np.uint8)).filter(ImageFilter.GaussianBlur(1.2)), float)
    noisy = (blurred + rng.normal(0, 2, size)).clip(0, 255).astype(np.uint8)
    return np.repeat(noisy[:, :, None], 3, axis=2), truth
