"""Where the time goes, in one sentence."""

from __future__ import annotations

from dataclasses import dataclass

from .roofline import LayerRow, Roofline

__all__ = ["bottleneck"]

SHOWN = 3
"""Layers that the sentence names at most."""

WORTH = 0.03
"""Share of the time below which a layer is not named."""


def bottleneck(limits: Roofline) -> str:
    """Which layers are the slowest for what they do: the most time above their limit, first to last.

    Reorders between memory layouts count together, and all their time is above the limit, since the network does not
    ask for them. Without times, the layers that have most to compute or to move.
    """
    if not any(row.ms for row in limits.rows):
        return _by_limit(limits)
    places = sorted(_places(limits), key=lambda place: place.lost, reverse=True)
    worth = [place for place in places if place.lost > 0 and place.share >= WORTH][:SHOWN]
    if not worth:
        longest = max((row for row in limits.rows if row.ms), key=lambda row: row.ms or 0)
        return f"No layer is far above its limit; the longest is {_layer(longest).text}."
    expected = " (estimated)" if limits.source == "estimated" else ""
    return f"Most time above the limit{expected}: {'; '.join(place.text for place in worth)}."


@dataclass(frozen=True)
class _Place:
    """Somewhere that time is lost: `lost` milliseconds above the limit, `share` of the whole, `text` for people."""

    lost: float
    share: float
    text: str


def _places(limits: Roofline) -> list[_Place]:
    timed = [row for row in limits.rows if row.ms]
    reorders = [row for row in timed if row.kind == "reorder"]
    places = [_layer(row) for row in timed if row.kind != "reorder"]
    if reorders:
        share = sum(row.share or 0 for row in reorders)
        times = f"{len(reorders)} of them" if len(reorders) > 1 else "one of them"
        text = f"reorders between memory layouts ({times}): {share:.0%} of the time"
        places.append(_Place(sum(row.ms or 0 for row in reorders), share, text.replace("%", " %")))
    return places


def _layer(row: LayerRow) -> _Place:
    ms, share = row.ms or 0, row.share or 0
    text = f"{row.name}: {share:.0%} of the time, at {row.limit_ms / ms:.0%} of the {row.bound} limit"
    return _Place(ms - row.limit_ms, share, text.replace("%", " %"))


def _by_limit(limits: Roofline) -> str:
    rows = sorted(limits.rows, key=lambda row: row.limit_ms, reverse=True)[:SHOWN]
    named = "; ".join(f"{row.name}: {row.limit_ms / limits.per_layer_ms:.0%} by {row.bound}" for row in rows)
    return f"Layers were not timed; at their limits most of the time would go to {named.replace('%', ' %')}."
