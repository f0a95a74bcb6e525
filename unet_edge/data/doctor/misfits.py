"""Pairs whose mask does not fit its image."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Sequence
from itertools import permutations

import numpy as np

from unet_edge.data.pairing import Pair
from unet_edge_runtime.errors import InputError

from .fit import TURNS, Fit, edge_ranks, fit_here, mask_edges
from .look import Look
from .reduced import as_picture, read_quickly, reduced, reduced_labels
from .suspicion import Suspicion, name_some

__all__ = ["find_misfits"]

# Shares of the data set's usual fit, set on six real data sets so that next to no true pair is suspected.
TURNED, MOVED, FOREIGN = 0.2, 0.3, 0.05
BELOW = 3.0  # standard deviations under the usual fit that a foreign mask has
LEAST_SPREAD = 0.05  # of the usual fit, as standard deviation
NO_FIT = 0.04  # a usual fit below it: outlines do not follow edges, and nothing can be told
LEAST_PAIRS = 8
SEARCHED = 24  # misfits among which masks are tried on each other's images
MOST = 0.5  # of all pairs: then something is wrong with all of them


def find_misfits(looks: Sequence[Look]) -> list[Suspicion]:
    """Compare how well each mask fits its image with how well it would fit elsewhere, and with the other pairs."""
    judged = [(look, look.fit) for look in looks if look.fit]
    if len(judged) < LEAST_PAIRS:
        return []
    usual = float(np.median([fit.best for _, fit in judged]))
    if usual < NO_FIT:
        return []
    here = np.array([fit.here for _, fit in judged])
    spread = max(1.4826 * float(np.median(np.abs(here - np.median(here)))), LEAST_SPREAD * usual)
    found: dict[str, list[tuple[float, Pair, Fit]]] = defaultdict(list)
    for look, fit in judged:
        if kind := _kind(fit, usual, float(np.median(here)) - BELOW * spread):
            found[kind].append((fit.here, look.pair, fit))
    return [
        _suspicion(kind, [item[1:] for item in sorted(items, key=lambda item: item[0])], len(judged))
        for kind, items in found.items()
    ]


def _kind(fit: Fit, usual: float, low: float) -> str | None:
    best = max(fit.turned)
    if best - fit.here > TURNED * usual:
        # Of a symmetric object two ways fit alike: the first is the simplest.
        ways = zip(TURNS, fit.turned, strict=False)
        return next(way for way, found in ways if found > best - FOREIGN * usual)
    if fit.best - fit.here > MOVED * usual:
        return "moved"
    return "foreign" if fit.best - fit.here > FOREIGN * usual and fit.here < low else None


def _suspicion(kind: str, items: list[tuple[Pair, Fit]], judged: int) -> Suspicion:
    pairs = tuple(pair for pair, _ in items)
    count = f"{len(pairs)} of {judged} masks" if len(pairs) > 1 else f"the mask of {pairs[0].image.name}"
    names = f": {name_some(pairs)}" if len(pairs) > 1 else ""
    fits = "fit" if len(pairs) > 1 else "fits"
    all_of_them = "; so many look like a fault in how the masks were made" if len(pairs) > MOST * judged else ""
    if kind in TURNS:
        word = kind.split()[0]
        remedy = f"{word.removesuffix('ed')} them back"
        text = f"{count} {fits} better {kind}{names}: look at the sheet and {remedy}{all_of_them}"
        return Suspicion(word, text, pairs)
    if kind == "moved":
        down, right = items[0][1].move
        vertical = f"{abs(down):.0%} {'down' if down >= 0 else 'up'}"
        horizontal = f"{abs(right):.0%} to the {'right' if right >= 0 else 'left'}"
        where = f" ({vertical}, {horizontal})" if len(pairs) == 1 else ""
        text = f"{count} {fits} better in another place{where}{names}: look at the sheet and align them{all_of_them}"
        return Suspicion("moved", text, pairs)
    swaps = _partners(list(pairs)[:SEARCHED])
    hint = "; ".join(f"that of {mask.image.name} fits {image.image.name}" for mask, image in swaps[:3])
    text = f"{count} {fits} the image worse than usual{names}: look at the sheet and correct the mask"
    return Suspicion("foreign", text + (f" ({hint})" if hint else "") + all_of_them, pairs)


def _partners(pairs: list[Pair]) -> list[tuple[Pair, Pair]]:
    """(mask, image) of pairs whose mask fits the other's image much better than its own."""
    try:
        pictures = [reduced(as_picture(read_quickly(pair.image)[1])) for pair in pairs]
        edges = [mask_edges(reduced_labels(pair.mask, p.shape)) for pair, p in zip(pairs, pictures, strict=True)]
    except InputError:
        return []
    ranks = [edge_ranks(picture) for picture in pictures]
    own = [fit_here(rank, edge) for rank, edge in zip(ranks, edges, strict=True)]
    found = []
    for mask, image in permutations(range(len(pairs)), 2):
        if edges[mask].shape == ranks[image].shape:
            gain = fit_here(ranks[image], edges[mask]) - max(own[mask], own[image])
            if gain > NO_FIT:
                found.append((gain, pairs[mask], pairs[image]))
    return [(mask, image) for _, mask, image in sorted(found, key=lambda item: -item[0])]
