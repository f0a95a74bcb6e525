"""Oxford-IIIT Pet: photos, and trimaps of the animal."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
from PIL import Image

from unet_edge_runtime.errors import InputError

from .archive import members
from .layout import as_labels, opened, stem_of, write_names

__all__ = ["convert_oxford_pet"]

# Trimap 1 is the animal, 2 the background, 3 the boundary between. The lowest value is a background's place here.
VALUES = np.zeros(256, np.uint8)
VALUES[1], VALUES[2], VALUES[3] = 1, 0, 255


def convert_oxford_pet(archives: list[Path], folder: Path) -> Iterator[str]:
    """Lay the archives images.tar.gz and annotations.tar.gz out; photos without a trimap are left out."""
    photos, annotations = archives
    trimaps, test = set(), set[str]()
    for name, content in members(annotations):
        stem = stem_of(name)
        if "/trimaps/" in f"/{name}" and name.endswith(".png") and stem:
            Image.fromarray(_labels(content, name)).save(folder / "masks" / f"{stem}.png")
            trimaps.add(stem)
        elif name.endswith("annotations/test.txt"):
            test = {line.split()[0] for line in content.decode("utf-8", "replace").splitlines() if line.strip()}
    written = set()
    for name, content in members(photos):
        stem = stem_of(name)
        if name.endswith(".jpg") and stem in trimaps:
            # Some of the files called .jpg are PNG or GIF: their content decides, here and in every reader.
            opened(content, name)
            (folder / "images" / f"{stem}.jpg").write_bytes(content)
            written.add(stem)
            yield stem
    for stem in trimaps - written:
        (folder / "masks" / f"{stem}.png").unlink()
    write_names(folder / "val.txt", sorted(written & test))


def _labels(content: bytes, name: str) -> np.ndarray:
    trimap = as_labels(opened(content, name))
    if not np.isin(trimap, (1, 2, 3)).all():
        raise InputError(f"{name}: holds other values than 1, 2 and 3: not the trimaps of Oxford-IIIT Pet")
    return VALUES[trimap]
