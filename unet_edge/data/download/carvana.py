"""Carvana: photos and masks in two archives, with matching names."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from unet_edge_runtime.errors import InputError

from .archive import members
from .layout import every_fifth, opened, stem_of, write_names

__all__ = ["convert_carvana"]


def convert_carvana(archives: list[Path], folder: Path) -> Iterator[str]:
    """Lay train.zip (CAR_VIEW.jpg) and train_masks.zip (CAR_VIEW_mask.gif) out."""
    photos, masks = archives
    found = _copy(masks, folder / "masks", ".gif", "_mask")
    wanted, names = set(found), []
    for stem in _copy(photos, folder / "images", ".jpg"):
        names.append(stem)
        yield stem
    if set(names) != wanted:
        lonely = sorted(wanted ^ set(names))[0]
        raise InputError(f"{photos}: {lonely} is in only one of both archives: not those of the Carvana challenge")
    cars = set(every_fifth({name.rpartition("_")[0] for name in names}))
    write_names(folder / "val.txt", [name for name in sorted(names) if name.rpartition("_")[0] in cars])


def _copy(archive: Path, folder: Path, suffix: str, ending: str = "") -> Iterator[str]:
    """Write all pictures of an archive; their names without the ending."""
    for name, content in members(archive):
        stem = stem_of(name)
        if name.lower().endswith(suffix) and stem and stem.endswith(ending):
            opened(content, name)
            (folder / f"{stem}{suffix}").write_bytes(content)
            yield stem.removesuffix(ending)
