"""Random variants of a training image and its labels, together."""

from __future__ import annotations

import contextlib
import importlib.util
import random
from collections.abc import Iterator
from typing import TYPE_CHECKING

import numpy as np
import torch

from unet_edge_runtime.errors import InputError, MissingExtraError
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import normalise

from .intensity import Intensity
from .warp import Warp, draw_window, warped

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LEVELS", "Augmenter"]

LEVELS: dict[str, tuple[Warp, Intensity] | None] = {
    "none": None,
    "light": (
        Warp(0.5, zoom=(0.8, 1.25), degrees=7, shift=0.05),
        Intensity(0.5, brightness=0.1, contrast=0.15, gamma=0.15),
    ),
    "strong": (
        Warp(0.8, zoom=(0.7, 1.4), degrees=15, shear=5, shift=0.1, elastic=0.015),
        Intensity(0.8, 0.15, 0.3, 0.3, saturation=0.4, hue=15, gain=0.1, noise=0.04, blur=1.2, seldom=0.2),
    ),
}


class Augmenter:
    """Crops, mirrors, moves and recolours one item.

    Args:
        spec: mean and std are used; they are applied last.
        level: none, light or strong.
        flip: none, horizontal, or both; with "both" and a level other than none also quarter turns, of images that
            are square or cropped.
        crop: (height, width); None leaves the whole image.

    Raises:
        InputError: no such level.
        MissingExtraError: kornia is not installed, which every level but none needs.
    """

    def __init__(
        self, spec: ModelSpec, level: str = "none", flip: str = "none", crop: tuple[int, int] | None = None
    ) -> None:
        if level not in LEVELS:
            raise InputError(f"the augmentation must be one of {', '.join(LEVELS)}, not {level!r}")
        if LEVELS[level] and importlib.util.find_spec("kornia") is None:
            raise MissingExtraError("kornia", "train", f"augmentation ({level})")
        self.spec, self.level, self.flip, self.crop = spec, LEVELS[level], flip, crop
        self.plain = spec.replace(mean=(), std=())

    def __call__(
        self, prepared: NDArray[np.generic], choice: random.Random
    ) -> tuple[NDArray[np.float32], NDArray[np.uint8]]:
        """One variant, which follows from `choice` alone.

        Args:
            prepared: (H, W, C + 1): channels and labels, as `Preparation.make` returns; not changed.
            choice: drawn from.

        Returns:
            Network input (C, h, w) float32 and labels (h, w) uint8; not contiguous.
        """
        prepared = self._mirrored(prepared, choice)
        window = draw_window(choice, (prepared.shape[0], prepared.shape[1]), self.crop)
        if self.level is None:
            return normalise(prepared[window][:, :, :-1], self.spec), _labels(prepared[window])
        warp, intensity = self.level
        moves, changes = choice.random() < warp.probability, choice.random() < intensity.probability
        with _one_thread():
            if moves:
                x, labels = warped(prepared, window, warp, choice, self.plain)
            else:
                x = torch.from_numpy(normalise(prepared[window][:, :, :-1], self.plain))
                labels = _labels(prepared[window])
            image = (intensity.change(x, choice) if changes else x).numpy()
        standardised = self.spec.mean or self.spec.std
        return normalise(np.moveaxis(image, 0, 2), self.spec) if standardised else image, labels

    def _mirrored(self, prepared: NDArray[np.generic], choice: random.Random) -> NDArray[np.generic]:
        if self.flip != "none" and choice.random() < 0.5:
            prepared = prepared[:, ::-1]
        if self.flip == "both" and choice.random() < 0.5:
            prepared = prepared[::-1]
        turns = self.flip == "both" and self.level and (self.crop or prepared.shape[0] == prepared.shape[1])
        return np.rot90(prepared) if turns and choice.random() < 0.5 else prepared


def _labels(prepared: NDArray[np.generic]) -> NDArray[np.uint8]:
    return prepared[:, :, -1].astype(np.uint8)


@contextlib.contextmanager
def _one_thread() -> Iterator[None]:
    """Sums come out the same in the main process as in a worker, which has one thread."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)
