"""What every converter does: write a picture that was in an archive, and the list of names that validate."""

from __future__ import annotations

import io
import re
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import MAX_PIXELS

__all__ = ["every_fifth", "opened", "stem_of", "write_names"]

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.-]{0,150}")


def stem_of(name: str) -> str | None:
    """The stem of a file in an archive, if it may be a file's name here; hidden files have none."""
    stem = PurePosixPath(name).stem
    return stem if NAME.fullmatch(stem) else None


def opened(content: bytes, name: str) -> Image.Image:
    """A decoded picture. Raises `InputError` for anything else."""
    try:
        picture = Image.open(io.BytesIO(content))
        if picture.width * picture.height > MAX_PIXELS:
            raise ValueError(f"{picture.width}x{picture.height} is too large")
        picture.load()
    except Exception as error:  # whatever a damaged file makes Pillow raise
        raise InputError(f"{name}: cannot be read ({error}): the archive is damaged or another one") from None
    return picture


def write_names(path: Path, names: Iterable[str]) -> None:
    """One name a line."""
    path.write_text("".join(f"{name}\n" for name in names), encoding="utf-8")


def every_fifth(names: Iterable[str]) -> list[str]:
    """Names 0, 5, 10, ... in sorted order."""
    return sorted(names)[::5]


def as_labels(picture: Image.Image) -> NDArray[np.uint8]:
    """(H, W) palette indices or grey values."""
    return np.asarray(picture if picture.mode in ("P", "L") else picture.convert("L"))
