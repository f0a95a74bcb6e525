"""Which file each mask goes to: never two masks in one file, never a mask over an image."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from .errors import InputError

__all__ = ["WRITTEN", "is_written_by_us", "mask_targets"]

WRITTEN = ("_OUT", "_OVERLAY", "_VIZ", "_PROB")
"""Endings of what prediction writes beside an image."""


def is_written_by_us(path: Path, images: Sequence[Path]) -> bool:
    """Whether `path` is what an earlier prediction of one of `images` wrote."""
    names = {image.stem for image in images} | {f"{image.stem}_{image.suffix[1:]}" for image in images}
    return any(path.stem.endswith(ending) and path.stem.removesuffix(ending) in names for ending in WRITTEN)


def mask_targets(images: Sequence[Path], outputs: Sequence[Path] = ()) -> list[Path]:
    """A mask file for each image: as named, in the named folder, or beside the image as `<stem>_OUT.png`.

    Args:
        images: the images; of the same stem in one folder of masks, each gets a name of its own.
        outputs: nothing, one folder, or a file for each image.

    Raises:
        InputError: outputs that do not fit the images, that are named twice, or that are images themselves.
    """
    one_file = len(outputs) == 1 == len(images) and outputs[0].suffix and not outputs[0].is_dir()
    if len(outputs) > 1 or one_file:
        if len(outputs) != len(images):
            raise InputError(f"{len(outputs)} outputs for {len(images)} inputs: give one each, or one folder")
        targets = list(outputs)
    else:
        folder = outputs[0] if outputs else None
        if folder is not None and folder.suffix.lower() in (".png", ".tif", ".tiff", ".bmp") and not folder.is_dir():
            raise InputError(f"{folder} names one picture; for {len(images)} inputs the output must be a folder")
        if folder is not None and folder.is_file():
            raise InputError(f"{folder} is a file; for {len(images)} inputs the output must be a folder")
        targets = _named(images, folder)
    sources = {_key(image) for image in images}
    for target, count in Counter(_key(target) for target in targets).items():
        if count > 1:
            raise InputError(f"{target} would get {count} masks: give each input an output of its own")
        if target in sources:
            raise InputError(f"{target} is an input, and its mask would take its place: choose another output")
    return targets


def _named(images: Sequence[Path], folder: Path | None) -> list[Path]:
    plain = [(folder or image.parent) / f"{image.stem}_OUT.png" for image in images]
    counts = Counter(_key(target) for target in plain)
    taken: set[str] = set()
    numbers: Counter[str] = Counter()
    targets = []
    for image, target in zip(images, plain, strict=True):
        key = _key(target)
        if counts[key] > 1:
            target = target.with_name(f"{image.stem}_{image.suffix[1:]}_OUT.png")
        while _key(target) in taken:
            numbers[key] += 1
            target = target.with_name(f"{image.stem}_{numbers[key] + 1}_OUT.png")
        taken.add(_key(target))
        targets.append(target)
    return targets


def _key(path: Path) -> str:
    """Equal for paths that are one file, also on systems that do not tell upper from lower case."""
    return str(path.absolute()).casefold()
