"""The picture that each row is timed on, as files that workers read."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.image import read_image
from unet_edge_runtime.spec import ModelSpec

from .fitting import draw_picture, fit_image, size_for

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Pictures"]

DRAWN = (512, 512)
"""Of the network's input, where neither the user nor the reference says a size."""


class Pictures:
    """Makes each picture once.

    Args:
        folder: for the files; a temporary one.
        files: the user's images; the middle one is timed. Without any a picture is drawn.
        reference: the reference's spec, whose size a drawn picture has for all models; None where it is unknown.

    Attributes:
        timed: the image that is timed, or None for a drawn picture.

    Raises:
        InputError: the image cannot be read.
    """

    def __init__(self, folder: Path, files: Sequence[Path], reference: ModelSpec | None) -> None:
        self.folder = folder
        self.timed = files[len(files) // 2] if files else None
        self._whole = read_image(self.timed) if self.timed else draw_picture(self._drawn_size(reference))

    def plain(self) -> Path:
        """The image as it is."""
        return self._file(self._whole)

    def fitted(self, size: tuple[int, int], spec: ModelSpec) -> Path:
        """The image brought to the size from which this model makes a network input of `size`."""
        return self._file(fit_image(self._whole, size, spec.scale))

    @property
    def origin(self) -> str:
        """What was timed on, for people."""
        height, width = self._whole.shape[:2]
        if self.timed is None:
            return f"a drawn picture of {height}x{width} (no --images were given)"
        return f"{self.timed.name}, {height}x{width}"

    def size_of(self, file: Path) -> tuple[int, int]:
        """(height, width) of a picture made here."""
        height, _, width = file.stem.partition("x")
        return int(height), int(width)

    def facts(self, files: Sequence[Path]) -> list[dict[str, Any]]:
        """Name, digest and size of the images that took part; unreadable ones are left out."""
        found = [] if self.timed is not None else [_drawn_facts(self._whole)]
        for file in dict.fromkeys([*files, *([self.timed] if self.timed else [])]):
            with contextlib.suppress(OSError, InputError):
                height, width = read_image(file).shape[:2]
                found.append(_facts(file.name, sha256_of(file), width, height, file == self.timed))
        return found

    def _file(self, image: NDArray[np.generic]) -> Path:
        path = self.folder / f"{image.shape[0]}x{image.shape[1]}.npy"
        if not path.exists():
            np.save(path, image)
        return path

    @staticmethod
    def _drawn_size(spec: ModelSpec | None) -> tuple[int, int]:
        if spec is None:
            return DRAWN
        trained = [tuple(-(-side // spec.multiple) * spec.multiple for side in size) for size in spec.training_sizes]
        network = spec.input_size or (trained[0] if trained else DRAWN)
        return size_for((network[0], network[1]), spec.scale)


def _facts(name: str, sha256: str | None, width: int, height: int, timed: bool) -> dict[str, Any]:
    return {"name": name, "sha256": sha256, "width": width, "height": height, "timed": timed}


def _drawn_facts(image: NDArray[np.generic]) -> dict[str, Any]:
    return _facts("drawn", None, image.shape[1], image.shape[0], True)
