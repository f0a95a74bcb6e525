"""Look into every image and mask once: sizes, mask values, and all that is wrong."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.mask import pack, unpack
from unet_edge_runtime.spec import MaskValue

from .cache import FactsCache
from .facts import JPEG_SUFFIXES, KEPT_VALUES, ImageFacts, MaskFacts, image_facts, mask_facts
from .looking import Progress, look_at_all
from .pairing import Pair

__all__ = ["Scan", "check_values", "format_value", "scan_pairs", "show_values"]

NAMED = 5  # files or values that one message names


@dataclass(frozen=True)
class Scan:
    """What a data set holds.

    Attributes:
        sizes: (height, width) of the images, after EXIF orientation, with their numbers, the most frequent first.
        channels: what the network should take: 1 if all images are grey, else 3 (alpha is left out).
        counts: pixels of every mask value over all masks, the ignored one included, sorted by value.
        values_by_mask: the values in each mask, by the pair's name.
        problems: one line each, with the file and a remedy.
        ignore: the mask value that does not count, or None.
        bits: of the numbers in the images: 8, 16, or 32 for floats; the largest.
    """

    sizes: dict[tuple[int, int], int]
    channels: int
    counts: dict[MaskValue, int]
    values_by_mask: dict[str, list[MaskValue]]
    problems: list[str]
    ignore: MaskValue | None = None
    bits: int = 8

    @property
    def classes(self) -> list[MaskValue]:
        """The mask values that are classes: all but the ignored one, sorted; a label is an index into them."""
        return [value for value in self.counts if value != self.ignore]


@dataclass(frozen=True)
class _Look:
    """A pair with what was found in it; None where a file cannot be read."""

    pair: Pair
    image: ImageFacts | None
    mask: MaskFacts | None
    problems: tuple[str, ...]


def scan_pairs(
    pairs: Sequence[Pair],
    *,
    ignore: MaskValue | None = None,
    max_classes: int = 64,
    progress: Progress | None = None,
    cache: bool = True,
) -> Scan:
    """Decode every image and every mask, in parallel, and collect all problems.

    Args:
        pairs: what `pair_files` returns.
        ignore: the mask value that does not count.
        max_classes: more mask values than this are taken for a mistake.
        progress: draws a bar, such as `cli.common.track`.
        cache: remember what was found in a file until it changes (`cache_folder`).
    """
    looks = look_at_all(_look, pairs, "Scanning", progress, cache)
    images = [look.image for look in looks if look.image]
    totals: Counter[int] = Counter()
    for look in looks:
        totals.update(look.mask.counts if look.mask else {})
    return Scan(
        sizes=dict(Counter(image.size for image in images).most_common()),
        channels=max((image.channels for image in images), default=3),
        counts={unpack(number): totals[number] for number in sorted(totals)},
        values_by_mask={look.pair.name: _values(look.mask) for look in looks if look.mask},
        problems=[
            *(problem for look in looks for problem in look.problems),
            *_value_problems([look for look in looks if look.mask], ignore, max_classes),
        ],
        ignore=ignore,
        bits=max((image.bits for image in images), default=8),
    )


def check_values(
    found: Scan | Mapping[str, Sequence[MaskValue]], known: Sequence[MaskValue], ignore: MaskValue | None = None
) -> list[str]:
    """Values that no class has, one line a mask.

    Args:
        found: a scan, or its `values_by_mask`, or the same by any other name for the masks, which messages show.
        known: values of the classes.
        ignore: the value that does not count.
    """
    by_mask = found.values_by_mask if isinstance(found, Scan) else found
    allowed = {*known, ignore}
    problems = []
    for name, values in by_mask.items():
        if unseen := [value for value in values if value not in allowed]:
            problems.append(
                f"{name}: holds {show_values(unseen)}, which is no class "
                f"(the classes are {show_values(known, 12)}): correct the mask, or ignore the value"
            )
    return problems


def format_value(value: MaskValue) -> str:
    """A mask value as it is written on the command line: 255, or 255,0,128."""
    return ",".join(map(str, value)) if isinstance(value, tuple) else str(value)


def show_values(values: Sequence[MaskValue], limit: int = NAMED) -> str:
    """Mask values for a message."""
    shown = [str(value) for value in values[:limit]]
    return ", ".join([*shown, f"and {len(values) - limit} more"] if len(values) > limit else shown)


def _look(cache: FactsCache, pair: Pair) -> _Look:
    problems: list[str] = []
    image: ImageFacts | None = None
    mask: MaskFacts | None = None
    try:
        image = image_facts(cache, pair.image)
    except InputError as error:
        problems.append(f"{error} (or remove it and its mask {pair.mask.name})")
    try:
        mask = mask_facts(cache, pair.mask)
    except InputError as error:
        problems.append(f"{error} (or remove it and its image {pair.image.name})")
    if image and mask and image.size != mask.size:
        problems.append(
            f"{pair.mask}: is {_size(mask.size)} (height x width), but its image {pair.image.name} is "
            f"{_size(image.size)}: save both at one size"
        )
    return _Look(pair, image, mask, tuple(problems))


def _values(facts: MaskFacts) -> list[MaskValue]:
    return [unpack(number) for number in sorted(facts.counts)]


def _value_problems(looks: list[_Look], ignore: MaskValue | None, max_classes: int) -> list[str]:
    """What is wrong with the values of all masks together."""
    found: dict[int, int] = {}  # packed value -> masks that hold it
    ignored = None if ignore is None else pack(ignore)
    for look in looks:
        assert look.mask
        for number in look.mask.counts:
            if number != ignored:
                found[number] = found.get(number, 0) + 1
    if not looks:
        return []
    beyond = [look.mask.distinct for look in looks if look.mask and look.mask.distinct > KEPT_VALUES]
    most = max([len(found), *beyond])
    jpegs = [look for look in looks if look.pair.mask.suffix.lower() in JPEG_SUFFIXES]
    if most > max_classes or (len(found) > 2 and jpegs):
        return [_too_many(looks, jpegs, most, max_classes)]
    problems = _mixed(looks) + (_two_codes(looks) if set(found) == {0, 1, 255} else [])
    if len(found) < 2:
        only = show_values([unpack(number) for number in found]) or "none"
        problems.append(
            f"{looks[0].pair.mask.parent}: all masks hold a single value ({only}): there is nothing to learn; "
            "give masks with at least two"
        )
    return problems


def _too_many(looks: list[_Look], jpegs: list[_Look], most: int, max_classes: int) -> str:
    suspects = sorted(jpegs or looks, key=lambda look: -(look.mask.distinct if look.mask else 0))
    worst = ", ".join(f"{look.pair.mask.name} ({look.mask.distinct})" for look in suspects[:NAMED] if look.mask)
    folder = looks[0].pair.mask.parent
    if jpegs:
        return (
            f"{folder}: {most} different values in masks, of which {len(jpegs)} are JPEG files, whose lossy "
            f"compression changes values (values in each: {worst}): save masks as PNG from their source"
        )
    return (
        f"{folder}: {most} different values in masks, more than {max_classes} classes (values in each: {worst}): "
        "save them without anti-aliasing, resized with nearest neighbour, one value a class (not one an object)"
    )


def _mixed(looks: list[_Look]) -> list[str]:
    color: list[Path] = []
    grey: list[Path] = []
    for look in looks:
        if look.mask:
            (color if any(isinstance(value, tuple) for value in _values(look.mask)) else grey).append(look.pair.mask)
    if not color or not grey:
        return []
    return [_two_kinds(color, "colour", grey, "grey") + "save all masks in one mode"]


def _two_codes(looks: list[_Look]) -> list[str]:
    """Whether some masks call the object 1 and the others 255, which would make two classes of it."""
    ones = [look.pair.mask for look in looks if look.mask and 1 in look.mask.counts]
    full = [look.pair.mask for look in looks if look.mask and 255 in look.mask.counts]
    if not set(ones).isdisjoint(full):
        return []
    return [
        _two_kinds(ones, "0/1", full, "0/255") + "save all masks with one of the two, or classes that differ as 1 and 2"
    ]


def _two_kinds(first: list[Path], kind: str, second: list[Path], other: str) -> str:
    few, kind, other = (first, kind, other) if len(first) <= len(second) else (second, other, kind)
    names = ", ".join(path.name for path in few[:NAMED]) + (", ..." if len(few) > NAMED else "")
    return f"{few[0].parent}: {len(few)} masks hold {kind} values and the others {other} ones ({kind}: {names}): "


def _size(size: tuple[int, int]) -> str:
    return f"{size[0]}x{size[1]}"
