"""Which images are nearly the same, and whether images of one group look alike."""

from __future__ import annotations

import math
import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from .look import ImageLook

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Grouping", "Similar", "Twins", "compare", "find_grouping"]

ALL_BITS = 128
BITS_APART = 12  # of the difference hash: candidates
SAME = 0.997  # correlation of thumbnails from which two images are taken for the same picture
LEAST_CONTRAST = 2.0  # standard deviation of a thumbnail, of 255: flat images all look alike
BLOCK = 1024  # images compared with all others at once
MOST_TWINS = 200_000
COMPARED = 20 * BLOCK  # images among which neighbours are looked for, in whole blocks
SIGMAS = 5.0  # how far beyond chance neighbours must share their group
SHARE_BEYOND_CHANCE = 0.2


@dataclass(frozen=True)
class Twins:
    """Two images, by number, that are nearly the same picture; `exact` if their files are equal byte for byte."""

    first: int
    second: int
    exact: bool


@dataclass(frozen=True)
class Similar:
    """All twins, and for each image the number of the one that looks most like it (-1: not looked for)."""

    twins: list[Twins]
    nearest: NDArray[np.int64]


@dataclass(frozen=True)
class Grouping:
    """Groups that names show, and that look alike.

    Attributes:
        pattern: regular expression for `--group-by`.
        keys: each image's group.
        alike: share of the images whose most similar one is of their own group.
        chance: that share if looks had nothing to do with it.
    """

    pattern: str
    keys: list[str]
    alike: float
    chance: float


PATTERNS = [pattern for mark in "_-. " for pattern in (f"^[^{mark}]+", rf"^.+(?=\{mark})")]


def compare(looks: Sequence[ImageLook]) -> Similar:
    """Compare every image with every other: by difference hash, and where that is near, by thumbnails.

    A hash alone has false alarms among images on one background; a thumbnail alone among those of one scene.
    """
    if not looks:
        return Similar([], np.zeros(0, np.int64))
    bits = np.array([np.unpackbits(np.frombuffer(bytes.fromhex(look.bits), np.uint8)) for look in looks], np.float32)
    signs = bits * 2 - 1  # their product counts equal bits
    thumbs = np.array([look.thumbnail().ravel() for look in looks], np.float32)
    centred = thumbs - thumbs.mean(axis=1, keepdims=True)
    contrast = np.sqrt((centred**2).mean(axis=1))
    unit = centred / np.maximum(contrast, 1e-3)[:, None] / math.sqrt(thumbs.shape[1])
    twins = _exact(looks)
    exact = {(twin.first, twin.second) for twin in twins}
    nearest = np.full(len(looks), -1, np.int64)
    for start in range(0, len(looks), BLOCK):
        rows = slice(start, start + BLOCK)
        first, second = np.nonzero(signs[rows] @ signs.T >= ALL_BITS - 2 * BITS_APART)
        first += start
        keep = (first < second) & (np.minimum(contrast[first], contrast[second]) >= LEAST_CONTRAST)
        first, second = first[keep], second[keep]
        same = np.einsum("ij,ij->i", unit[first], unit[second]) >= SAME
        found = zip(first[same].tolist(), second[same].tolist(), strict=True)
        twins += [Twins(a, b, False) for a, b in found if (a, b) not in exact][: max(0, MOST_TWINS - len(twins))]
        if start < COMPARED:
            nearest[rows] = _nearest(thumbs[:COMPARED], start)
    return Similar(twins, nearest)


def find_grouping(names: Sequence[str], similar: Similar) -> Grouping | None:
    """The grouping by names that tells best which images look alike, or None where none tells anything."""
    found = [grouping for pattern in PATTERNS if (grouping := _grouping(pattern, names, similar.nearest))]
    return max(
        found, key=lambda grouping: (round(grouping.alike - grouping.chance, 2), -len(grouping.pattern)), default=None
    )


def _exact(looks: Sequence[ImageLook]) -> list[Twins]:
    first: dict[str, int] = {}
    return [
        Twins(first[look.sha256], number, True)
        for number, look in enumerate(looks)
        if first.setdefault(look.sha256, number) != number
    ]


def _nearest(thumbs: NDArray[np.float32], start: int) -> NDArray[np.int64]:
    block = thumbs[start : start + BLOCK]
    distance = (thumbs**2).sum(axis=1)[None] - 2 * block @ thumbs.T
    distance[np.arange(len(block)), start + np.arange(len(block))] = np.inf
    return distance.argmin(axis=1)


def _grouping(pattern: str, names: Sequence[str], nearest: NDArray[np.int64]) -> Grouping | None:
    matches = [re.match(pattern, name) for name in names]
    if not all(matches):
        return None
    keys = [match[0] for match in matches if match]
    sizes = Counter(keys)
    looked = [number for number, other in enumerate(nearest) if other >= 0]
    if not 2 <= len(sizes) <= len(names) / 2 or len(looked) < 2:
        return None
    alike = sum(keys[number] == keys[nearest[number]] for number in looked) / len(looked)
    chance = sum(size * (size - 1) for size in sizes.values()) / (len(names) * (len(names) - 1))
    spread = math.sqrt(max(chance * (1 - chance), 1e-9) / len(looked))
    if alike < chance + max(SHARE_BEYOND_CHANCE, SIGMAS * spread):
        return None
    return Grouping(pattern, keys, alike, chance)
