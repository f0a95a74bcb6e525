"""What speed and size cost in Dice: scatter plots with the front of the rows that nothing else beats."""

from __future__ import annotations

import functools
import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from .axis import Axis, linear
from .canvas import HALF, Canvas, both, clipped, text_width
from .view import Group, View
from .words import number

__all__ = ["Box", "Mark", "by_latency", "by_size", "front", "placed", "scored_group"]

TALL = 300  # px, the plot's height
LEFT, BOTTOM = 52, 44  # px, room for the axes' numbers
LEAST = 0.002  # the Dice that the vertical axis spans at least: or noise would look like a difference


@dataclass(frozen=True)
class Mark:
    """A point: smaller x is better, and so is higher y.

    Attributes:
        x: milliseconds or megabytes.
        y: Dice.
        label: for people.
        state: ok, wrong, untimed or failed.
    """

    x: float
    y: float
    label: str
    state: str


def scored_group(view: View) -> Group | None:
    """The group with most rows that have times and Dice: times of different work do not belong in one picture."""
    groups = [group for group in view.groups if any(row.dice is not None for row in group.timed)]
    return max(groups, key=lambda group: sum(row.dice is not None for row in group.timed), default=None)


def by_latency(view: View) -> str:
    """Milliseconds against Dice in `scored_group`; empty without scores or times."""
    group = scored_group(view)
    if group is None:
        return ""
    marks = [
        Mark(float(row.statistics["total"]["median"]), row.dice, row.label, row.state)
        for row in group.timed
        if row.dice is not None
    ]
    return _both(marks, f"ms for one {view.unit}", "Milliseconds against Dice")


def by_size(view: View) -> str:
    """Megabytes of the file against Dice, each file once for each result; empty without scores."""
    marks: dict[tuple[object, ...], Mark] = {}
    for row in view.rows:
        if row.dice is not None and row.data.get("bytes"):
            key = (row.data.get("sha256"), row.dice, row.state == "wrong")
            label = str(row.data.get("model") or row.label)
            marks.setdefault(key, Mark(row.data["bytes"] / 1e6, row.dice, label, row.state))
    return _both(list(marks.values()), "MB, the file", "Megabytes against Dice")


def front(marks: Sequence[Mark]) -> list[Mark]:
    """Marks that none beats in both directions, from the smallest x on; wrong and untimed ones do not count."""
    best: list[Mark] = []
    for mark in sorted((mark for mark in marks if mark.state == "ok"), key=lambda mark: (mark.x, -mark.y)):
        if not best or mark.y > best[-1].y:
            best.append(mark)
    return best


def _both(marks: Sequence[Mark], unit: str, label: str) -> str:
    return both(functools.partial(_draw, marks, unit), label, HALF) if marks else ""


def _draw(marks: Sequence[Mark], unit: str, width: float) -> Canvas:
    canvas = Canvas(width, TALL)
    x, y = _axes(marks, width)
    for place, text in y.labels():
        canvas.line(LEFT, place, width, place, "grid")
        canvas.text(LEFT - 8, place + 4, text, anchor="end")
    for place, text in x.labels():
        canvas.text(place, TALL - BOTTOM + 20, text, anchor="middle")
    canvas.text(width, TALL - 4, unit, anchor="end")
    canvas.text(0, TALL - 4, "↑ Dice")
    best = front(marks)
    # Where labels need one another's place, those of the front have it.
    marks = sorted(marks, key=lambda mark: mark not in best)
    steps = [point for mark, after in itertools.pairwise(best) for point in _step(mark, after, x, y)]
    if steps:
        canvas.path([*steps, (x.at(best[-1].x), y.at(best[-1].y))], "front")
    points = [(x.at(mark.x), y.at(min(max(mark.y, y.low), y.high))) for mark in marks]
    for mark, point in zip(marks, points, strict=True):
        _point(canvas, mark, *point, mark in best)
    labels = [mark.label if y.low <= mark.y <= y.high else f"{mark.label}: {mark.y:.4f}" for mark in marks]
    box = (LEFT + 2.0, 2.0, width, TALL - BOTTOM + 2.0)
    for mark, spot in zip(marks, placed(labels, points, box), strict=True):
        if spot:
            canvas.text(spot[0], spot[1], spot[2], "wrong" if mark.state == "wrong" else "name", note=mark.label)
    return canvas


def _axes(marks: Sequence[Mark], width: float) -> tuple[Axis, Axis]:
    # What is wrong has often a Dice so low that it would press the others together: it stands at the lower edge.
    right = [mark.y for mark in marks if mark.state != "wrong"] or [mark.y for mark in marks]
    low, high = min(right), max(right)
    room = max(LEAST - (high - low), (high - low) * 0.2) / 2
    x = linear(0.0, max(mark.x for mark in marks), LEFT, width - 22)
    return x, linear(max(0.0, low - room), high + room, TALL - BOTTOM, 14, gap=46)


def _step(mark: Mark, after: Mark, x: Axis, y: Axis) -> list[tuple[float, float]]:
    return [(x.at(mark.x), y.at(mark.y)), (x.at(after.x), y.at(mark.y))]


def _point(canvas: Canvas, mark: Mark, x: float, y: float, best: bool) -> None:
    note = f"{mark.label}: {number(mark.x)}, Dice {mark.y:.4f}"
    if mark.state == "wrong":
        canvas.cross(x, y, 5, "cross", note)
    else:
        canvas.circle(x, y, 5, "point best" if best else "point" if mark.state == "ok" else "point hollow", note)


Spot = tuple[float, float, str]
Box = tuple[float, float, float, float]


def placed(
    labels: Sequence[str],
    points: Sequence[tuple[float, float]],
    box: Box,
    room: float = 210,
    others: Sequence[Box] = (),
) -> list[Spot | None]:
    """Where labels can stand beside their points without touching each other or any point.

    Args:
        labels: one a point.
        points: in pixels.
        box: left, top, right, bottom that no label leaves.
        room: pixels of the longest label; longer ones are cut.
        others: boxes that are taken already.

    Returns:
        x and y (left end of the base line) and the text; None where there is no place.
    """
    taken: list[Box] = [*others, *((x - 6, y - 6, x + 6, y + 6) for x, y in points)]
    spots: list[Spot | None] = []
    for label, (x, y) in zip(labels, points, strict=True):
        spot = next((s for s in _candidates(label, x, y, room) if _free(_box(s), taken, box)), None)
        if spot:
            taken.append(_box(spot))
        spots.append(spot)
    return spots


def _candidates(label: str, x: float, y: float, room: float) -> list[Spot]:
    """Right, above, below, left; further above and below; then the same for less of the label."""
    spots = []
    for text in dict.fromkeys(clipped(label, limit) for limit in (room, room * 0.7, room * 0.45)):
        wide = text_width(text)
        sides = [(x + 9, y + 4, text), (x - 9 - wide, y + 4, text)]
        near, far = (
            [(x + shift * wide, y + rise, text) for rise in rises for shift in (-0.5, -0.15, -0.85)]
            for rises in ((-10, 18), (-24, 32))
        )
        spots += [sides[0], *near, sides[1], *far]
    return spots


def _box(spot: Spot) -> Box:
    x, y, text = spot
    return x, y - 11, x + text_width(text), y + 4


def _free(box: Box, taken: Sequence[Box], limits: Box) -> bool:
    inside = box[0] >= limits[0] and box[1] >= limits[1] and box[2] <= limits[2] and box[3] <= limits[3]
    return inside and not any(
        box[0] < other[2] and other[0] < box[2] and box[1] < other[3] and other[1] < box[3] for other in taken
    )
