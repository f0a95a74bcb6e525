"""Data Science Bowl 2018: one folder an image, with one mask a nucleus."""

from __future__ import annotations

from collections.abc import Iterator
from itertools import groupby
from pathlib import Path, PurePosixPath

import numpy as np
from PIL import Image

from unet_edge_runtime.errors import InputError

from .archive import members
from .layout import as_labels, every_fifth, opened, stem_of, write_names

__all__ = ["convert_dsb2018"]

INSIDE = 127  # of a nucleus's mask, 0 and 255


def convert_dsb2018(archives: list[Path], folder: Path) -> Iterator[str]:
    """Lay stage1_train.zip out: ID/images/ID.png, and all of ID/masks/*.png as one mask."""
    files = ((name, content) for name, content in members(archives[0]) if name.endswith(".png") and stem_of(name))
    names = []
    # A zip comes sorted by name: an image, then its masks.
    for key, group in groupby(files, key=lambda item: str(PurePosixPath(item[0]).parent.parent)):
        pair = _pair(key, list(group))
        if pair:
            stem, content, mask = pair
            (folder / "images" / f"{stem}.png").write_bytes(content)
            Image.fromarray(mask).save(folder / "masks" / f"{stem}.png")
            names.append(stem)
            yield stem
    write_names(folder / "val.txt", every_fifth(names))


def _pair(key: str, group: list[tuple[str, bytes]]) -> tuple[str, bytes, np.ndarray] | None:
    images = [item for item in group if PurePosixPath(item[0]).parent.name == "images"]
    masks = [item for item in group if PurePosixPath(item[0]).parent.name == "masks"]
    if not (len(images) == 1 and masks):
        return None
    name, content = images[0]
    picture = opened(content, name)
    merged = np.zeros((picture.height, picture.width), np.uint8)
    for mask_name, mask in masks:
        inside = as_labels(opened(mask, mask_name)) > INSIDE
        if inside.shape != merged.shape:
            raise InputError(f"{mask_name}: has another size than its image: not the archive of the Data Science Bowl")
        merged[inside] = 255
    return stem_of(name) or key, content, merged
