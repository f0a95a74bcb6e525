"""What the times allow to say, in words: who is fastest, by how much, or that it cannot be told."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from .view import Group, Row, View
from .words import interval, joined, number, spread

__all__ = ["Duel", "Headline", "duels", "group_sentence", "headline", "sentences", "unbeaten"]


@dataclass(frozen=True)
class Duel:
    """Two rows compared, seen from the first.

    Attributes:
        ratio: how many times as fast the first is: median, low, high; the ends None where not known.
        verdict: "faster", "slower" or "cannot tell", said of the first.
    """

    ratio: Mapping[str, float | None]
    verdict: str

    def text(self) -> str:
        """1.94 [1.90–1.98]."""
        return interval(self.ratio)

    def inverse(self) -> Duel:
        """Seen from the second."""
        opposite = {"faster": "slower", "slower": "faster"}
        return Duel(_inverse(self.ratio), opposite.get(self.verdict, self.verdict))


Duels = Mapping[tuple[str, str], Duel]


@dataclass(frozen=True)
class Headline:
    """A title, and under it for each group its own title, empty if there is but one, and a sentence."""

    title: str
    lead: Sequence[tuple[str, str]]


def duels(view: View) -> Duels:
    """Every ranked pair in both directions, by the two rows' ids."""
    found: dict[tuple[str, str], Duel] = {}
    for pair in view.results.get("ranking") or []:
        first, second = str(pair["first"]), str(pair["second"])
        # The results tell how many times as long the first takes; people ask how many times as fast it is.
        speed = _inverse(pair["ratio"])
        median = speed["median"]
        verdict = pair["verdict"]
        if verdict != "cannot tell":
            verdict = "faster" if median is not None and median > 1 else "slower"
        found[first, second] = Duel(speed, verdict)
        found[second, first] = found[first, second].inverse()
    return found


def unbeaten(group: Group, known: Duels) -> list[Row]:
    """Rows than which no other of the group is faster, quickest median first."""
    rows = [row for row in group.ranked if not any(_beats(other, row, known) for other in group.ranked)]
    return sorted(rows, key=_median)


def group_sentence(group: Group, known: Duels) -> str:
    """What is fastest in a group, by how much, and what cannot be told."""
    first = unbeaten(group, known)
    if not first:
        return "Nothing was timed that agrees with the reference." if group.timed else "Nothing could be timed."
    if len(group.ranked) == 1:
        return f"{first[0].label} takes {_time(first[0])} ms for one {group.unit}; there is nothing to compare it with."
    others = sorted((row for row in group.ranked if row not in first), key=_median)
    if len(first) == 1:
        text = f"{first[0].label} is the fastest with {_time(first[0])} ms for one {group.unit}"
        return f"{text}: {_rivals(first[0], others, known)}."
    text = f"It cannot be told which of {joined([row.label for row in first])} is the fastest"
    duel = known.get((first[0].id, first[1].id))
    if len(first) == 2 and duel:
        text += f": their times have the ratio {duel.text()}"
    return text + (f". Slower than at least one of them: {joined([row.label for row in others])}." if others else ".")


def sentences(group: Group, known: Duels) -> list[str]:
    """One line for each pair of a group that was compared."""
    rows = sorted(group.ranked, key=_median)
    lines = []
    for index, row in enumerate(rows):
        for other in rows[index + 1 :]:
            duel = known.get((row.id, other.id))
            if duel and duel.verdict == "cannot tell":
                lines.append(f"{row.label} or {other.label}: cannot tell ({duel.text()})")
            elif duel:
                lines.append(f"{row.label} is {duel.text()} times as fast as {other.label}")
    return lines


def headline(view: View) -> Headline:
    """The run in a few words."""
    known = duels(view)
    lead = [(group.title if len(view.groups) > 1 else "", group_sentence(group, known)) for group in view.groups]
    return Headline(_title(view, known), lead)


def _title(view: View, known: Duels) -> str:
    if view.doubts():
        return "The machine was not steady: do not rely on these times"
    winners = [unbeaten(group, known) for group in view.groups if group.ranked]
    if not winners:
        return "Nothing could be timed" if not any(group.timed for group in view.groups) else "Fast, but wrong"
    if all(len(group.ranked) < 2 for group in view.groups):
        (row, *more) = [group.ranked[0] for group in view.groups if group.ranked]
        return f"{row.label}: {number(_median(row))} ms for one {view.unit}" if not more else "How long one image takes"
    if any(len(rows) > 1 for rows in winners):
        always = set.intersection(*({row.label for row in rows} for rows in winners))
        if len(always) == 1 and len(winners) > 1:
            return f"Nothing beats {always.pop()}"
        alone = len(winners) == 1 and len(winners[0]) < 4
        return f"Too close to call: {joined([row.label for row in winners[0]], 'or')}" if alone else "Too close to call"
    labels = {rows[0].label for rows in winners}
    return f"{labels.pop()} is the fastest" if len(labels) == 1 else "Which is the fastest depends on the size"


def _rivals(row: Row, others: Sequence[Row], known: Duels) -> str:
    """The next one and, if that is another, the slowest."""
    named = [others[0], others[-1]] if len(others) > 1 else others[:1]
    parts = []
    for other in named:
        duel = known.get((row.id, other.id))
        if duel and duel.verdict == "faster":
            parts.append(f"{duel.text()} times as fast as {other.label}")
    return ", ".join(parts)


def _beats(row: Row, other: Row, known: Duels) -> bool:
    duel = known.get((row.id, other.id))
    return duel is not None and duel.verdict == "faster"


def _inverse(ratio: Mapping[str, float | None]) -> dict[str, float | None]:
    median, low, high = (ratio.get(name) for name in ("median", "low", "high"))
    return {"median": median and 1 / median, "low": high and 1 / high, "high": low and 1 / low}


def _median(row: Row) -> float:
    assert row.total is not None
    return float(row.total["median"])


def _time(row: Row) -> str:
    assert row.total is not None
    median, bounds = spread(row.total)
    return f"{median} [{bounds}]" if bounds else median
