"""Training images that give away validation images, and duplicates."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from unet_edge.data.pairing import Pair
from unet_edge.data.split import Split

from .look import Look, MaskLook
from .similar import Grouping, Similar, Twins, compare, find_grouping
from .suspicion import Suspicion, name_some

__all__ = ["find_leaks"]

SHOWN = 12  # twins that are shown side by side
TORN = 0.1  # share of the validation images from which torn groups matter
BESIDE = 2  # places in the order of names: neighbours in a film or a stack of slices
FOLLOWING = 0.5  # share of images whose most similar one is beside them, from which the set is a film or a stack
LEAST = 10  # images of which a film or a stack has more


def find_leaks(looks: Sequence[Look], split: Split | None) -> list[Suspicion]:
    """Look for twins across the split and within its sides, and for groups that it tears apart."""
    known = [look for look in looks if look.image and look.mask]
    images = [look.image for look in known if look.image]
    similar = compare(images)
    val = set(split.val) if split else set()
    side = np.array([look.pair in val for look in known], bool)
    across = [twins for twins in similar.twins if side[twins.first] != side[twins.second]]
    within = [twins for twins in similar.twins if side[twins.first] == side[twins.second]]
    pairs = [look.pair for look in known]
    found = [*_twins_across(across, pairs, side), *_twins_within(within, pairs), *_contradictions(similar.twins, known)]
    grouping = find_grouping([pair.image.stem for pair in pairs], similar)
    torn = _torn(grouping, similar, pairs, side) if grouping else []
    return [*(torn or _film(similar, pairs, side)), *found]


def _torn(grouping: Grouping, similar: Similar, pairs: list[Pair], side: np.ndarray) -> list[Suspicion]:
    """Groups with images on both sides, where that shows in what images look like."""
    keys = grouping.keys
    both = {key for key, val in zip(keys, side, strict=True) if val} & {
        key for key, val in zip(keys, side, strict=True) if not val
    }
    nearest = similar.nearest
    torn = [
        int(number)
        for number in np.flatnonzero(side & (nearest >= 0))
        if keys[number] == keys[nearest[number]] and not side[nearest[number]]
    ]
    if len(torn) < max(1, TORN * side.sum()):
        return []
    twins = tuple((pairs[number], pairs[nearest[number]]) for number in torn[:SHOWN])
    text = (
        f"the split tears {len(both)} of {len(set(keys))} groups apart (alike in {grouping.pattern}), and images of "
        f"a group look alike: the most similar of all is of the same group in {grouping.alike:.0%} of all cases "
        f"({grouping.chance:.0%} by chance). {len(torn)} of {int(side.sum())} validation images have theirs in "
        f"training, so scores will be too good: train with --group-by '{grouping.pattern}'"
    )
    return [Suspicion("leak", text, tuple(pairs[number] for number in torn), twins)]


def _film(similar: Similar, pairs: list[Pair], side: np.ndarray) -> list[Suspicion]:
    """Images that follow one another, such as slices, divided at random."""
    looked = np.flatnonzero(similar.nearest >= 0)
    # One unbroken stretch is the remedy: it touches training at its two ends alone.
    if len(pairs) <= LEAST or np.count_nonzero(side[1:] != side[:-1]) <= 2:
        return []
    beside = np.abs(similar.nearest[looked] - looked) <= BESIDE
    torn = [int(n) for n, near in zip(looked, beside, strict=True) if near and side[n] and not side[similar.nearest[n]]]
    if beside.mean() < FOLLOWING or len(torn) < FOLLOWING * side.sum():
        return []
    twins = tuple((pairs[number], pairs[similar.nearest[number]]) for number in torn[:SHOWN])
    text = (
        "the images follow one another as those of a film or a stack do: the most similar one is at most "
        f"{BESIDE} places away in {beside.mean():.0%} of all cases, and {len(torn)} of {int(side.sum())} validation "
        "images have their most similar one in training, so scores will be too good: name one unbroken stretch "
        "with --val-list"
    )
    return [Suspicion("leak", text, tuple(pairs[number] for number in torn), twins)]


def _twins_across(twins: list[Twins], pairs: list[Pair], side: np.ndarray) -> list[Suspicion]:
    if not twins:
        return []
    ordered = sorted(twins, key=lambda two: not two.exact)
    shown = [(two.first, two.second) if side[two.first] else (two.second, two.first) for two in ordered]
    given_away = list(dict.fromkeys(val for val, _ in shown))
    example = f"{pairs[shown[0][0]].image.name} and {pairs[shown[0][1]].image.name}"
    exact = sum(two.exact for two in twins)
    what = f"{exact} of them the same file" if exact else "none of them the same file"
    text = (
        f"{len(given_away)} of {int(side.sum())} validation images are nearly the same picture as a training image "
        f"({len(twins)} twins, {what}; such as {example}): keep twins on one side, with --val-list or --group-by"
    )
    both = tuple((pairs[val], pairs[train]) for val, train in shown[:SHOWN])
    return [Suspicion("leak", text, tuple(pairs[number] for number in given_away), both)]


def _twins_within(twins: list[Twins], pairs: list[Pair]) -> list[Suspicion]:
    if not twins:
        return []
    ordered = sorted(twins, key=lambda two: not two.exact)
    again = list(dict.fromkeys(pairs[two.second] for two in ordered))
    exact = sum(two.exact for two in twins)
    text = (
        f"{len(again)} images are nearly the same picture as another on their side of the split ({len(twins)} twins, "
        f"{exact} of them the same file): {name_some(again)}: they count double; keep one of each if that is not meant"
    )
    return [
        Suspicion("duplicate", text, tuple(again), tuple((pairs[t.first], pairs[t.second]) for t in ordered[:SHOWN]))
    ]


def _contradictions(twins: list[Twins], known: list[Look]) -> list[Suspicion]:
    """One image under two names with two different masks."""
    found = [
        (known[two.first].pair, known[two.second].pair)
        for two in twins
        if two.exact and _content(known[two.first].mask) != _content(known[two.second].mask)
    ]
    if not found:
        return []
    text = (
        f"{len(found)} images are there twice with different masks, such as {found[0][0].image.name} and "
        f"{found[0][1].image.name}: keep the right mask"
    )
    return [Suspicion("contradiction", text, tuple(first for first, _ in found), tuple(found[:SHOWN]))]


def _content(mask: MaskLook | None) -> str | None:
    return mask.sha256 if mask else None
