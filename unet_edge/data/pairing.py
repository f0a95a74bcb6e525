"""Which mask belongs to which image."""

from __future__ import annotations

import unicodedata
from collections import Counter, defaultdict
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import image_files

__all__ = ["MASK_SUFFIXES", "Pair", "pair_files"]

MASK_SUFFIXES = ("", "_mask", "_masks", "-mask", "_seg", "_segmentation", "_label", "_labels", "_gt", "_L", "mask")
FEW = 3  # missing masks that are listed, whatever share of all they are
"""What is usual after an image's stem in its mask's stem; on a tie the first one is taken."""


@dataclass(frozen=True)
class Pair:
    """An image and its mask.

    Attributes:
        name: stem of the image, in Unicode's composed form (NFC).
        image: the image's file.
        mask: the mask's file.
    """

    name: str
    image: Path
    mask: Path


def pair_files(images: Path, masks: Path, mask_suffix: str | None = None) -> tuple[list[Pair], list[str]]:
    """Pair the images of one folder with the masks of another, or of the same.

    A mask is called like its image, up to the format and a suffix after the stem: `car 1.jpg` and
    `car 1_mask.gif`. Stems are compared in composed form, because macOS and Linux spell accents differently.
    Hidden files and files that are no images are left out.

    Args:
        images: folder of the images.
        masks: folder of the masks; when it is the same, the suffix tells the masks.
        mask_suffix: "" for none; by default the suffix that pairs most images.

    Returns:
        The pairs, sorted by name, and the problems: one line each, with the file and a remedy.
    """
    try:
        image_list = image_files(images)
        mask_list = image_files(masks)
    except InputError as error:
        return [], [str(error)]
    same = images.resolve() == masks.resolve()
    suffix = mask_suffix
    if suffix is None:
        suffix = _detect_suffix(map(_stem, image_list), map(_stem, mask_list), same)
    suffix = unicodedata.normalize("NFC", suffix)
    if same and not suffix:
        return [], [f"{images}: images and masks in one folder need names that differ by a suffix, such as _mask"]
    if same:
        image_list = [path for path in image_list if not _stem(path).endswith(suffix)]
        mask_list = [path for path in mask_list if _stem(path).endswith(suffix)]
    return _match(image_list, mask_list, suffix, masks)


def _match(images: list[Path], masks: list[Path], suffix: str, folder: Path) -> tuple[list[Pair], list[str]]:
    by_name, by_mask = _by_stem(images), _by_stem(masks)
    wanted = {name + suffix for name in by_name}
    problems = [*_doubles("images", by_name), *_doubles("masks", by_mask)]
    names = sorted(by_name)
    if images and masks and not wanted & by_mask.keys():
        return [], [
            *problems,
            f"{folder}: no mask belongs to an image: {images[0].name} needs {names[0]}{suffix}.*, and there is "
            f"{masks[0].name}: rename the files, or say --mask-suffix",
        ]
    missing = [name for name in names if name + suffix not in by_mask]
    if len(missing) > max(FEW, len(names) / 2):
        problems.append(
            f"{folder}: has masks of only {len(names) - len(missing)} of {len(names)} images ({by_name[missing[0]][0]} "
            f"needs {missing[0]}{suffix}.*): is it the folder of their masks?"
        )
        missing = []
    for name in missing:
        path = by_name[name][0]
        problems.append(f"{path}: has no mask {name}{suffix}.* in {folder}: add the mask or remove the image")
    for stem in sorted(by_mask.keys() - wanted):
        path = by_mask[stem][0]
        if stem.endswith(suffix):
            reason = f"has no image {stem.removesuffix(suffix)}.*: add the image or remove the mask"
        else:
            reason = f"does not end with {suffix!r} as the other masks do: rename it, or say --mask-suffix"
        problems.append(f"{path}: {reason}")
    pairs = [Pair(name, by_name[name][0], by_mask[name + suffix][0]) for name in names if name + suffix in by_mask]
    return pairs, problems


def _stem(path: Path) -> str:
    return unicodedata.normalize("NFC", path.stem)


def _by_stem(paths: Iterable[Path]) -> dict[str, list[Path]]:
    found: dict[str, list[Path]] = defaultdict(list)
    for path in paths:
        found[_stem(path)].append(path)
    return dict(found)


def _doubles(kind: str, by_stem: dict[str, list[Path]]) -> list[str]:
    return [
        f"{paths[0]}: {len(paths)} {kind} have the same name without format "
        f"({', '.join(path.name for path in paths)}): keep one"
        for _, paths in sorted(by_stem.items())
        if len(paths) > 1
    ]


def _detect_suffix(image_stems: Iterable[str], mask_stems: Iterable[str], same: bool) -> str:
    """The suffix by which most masks find an image; of those that pair equally many the most usual one."""
    names = set(image_stems)
    counts: Counter[str] = Counter()
    for stem in set(mask_stems):
        # Every way to cut the stem into an image's name and a rest.
        for cut in range(1, len(stem) + 1):
            if stem[:cut] in names and _plausible(stem[cut:]) and (cut < len(stem) or not same):
                counts[stem[cut:]] += 1
    if not counts:
        return ""
    usual = {suffix: place for place, suffix in enumerate(MASK_SUFFIXES)}
    return min(counts, key=lambda suffix: (-counts[suffix], usual.get(suffix, len(usual)), suffix))


def _plausible(suffix: str) -> bool:
    # Without this, image 1 would take mask 10 for its own where the real mask 1 is missing.
    return suffix in MASK_SUFFIXES or not suffix[0].isalnum()
