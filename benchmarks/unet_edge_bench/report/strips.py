"""The picture of the latencies: every sample a dot, on one axis for all rows."""

from __future__ import annotations

import functools
from collections.abc import Sequence

from .axis import Axis, linear, logarithmic
from .canvas import WIDE, Canvas, both, clipped, text_width
from .view import Row, View
from .words import number, plural, spread

__all__ = ["strips"]

FAR = 6.0  # times between the quickest and the slowest row from which the axis is logarithmic
BEYOND = 1.15  # times the slowest row's 95th percentile at which the axis ends; what lies beyond is counted there
WIDEST = 2.5  # times its median that a row's 95th percentile may ask of the axis
NEAR = 0.5  # share of the axis's end beyond which the quickest sample lets it begin later than at 0
LANES = 20  # px, height of a row's dots
HEAD = 30  # px, a group's title


def strips(view: View) -> str:
    """Every timed row as a strip, in groups; empty without any."""
    if not any(row.total for row in view.rows):
        return ""
    return both(functools.partial(_draw, view), f"Milliseconds for one {view.unit}, every sample a dot")


def is_log(view: View) -> bool:
    """Whether the rows are too far from each other for an axis that begins at 0."""
    medians = [row.total["median"] for row in view.rows if row.total]
    return max(medians) > FAR * min(medians)


def _draw(view: View, width: float) -> Canvas:
    canvas = Canvas(width, 8)
    timed = [(group, group.timed) for group in view.groups if group.timed]
    room = _label_room([row for _, rows in timed for row in rows]) if width == WIDE else 0.0
    axis = _axis(view, room or 8, width - 22)
    places: list[tuple[Row, float]] = []
    for group, rows in timed:
        if len(view.groups) > 1:
            canvas.text(0, canvas.height + 14, group.title, "group")
            canvas.height += HEAD
        for row in rows:
            places.append((row, canvas.height))
            canvas.height += 48 if room else 74
        canvas.height += 8
    _grid(canvas, axis, view.unit)
    for row, top in places:
        _label(canvas, row, top, room)
        _strip(canvas, row, axis, top + (3 if room else 38))
    return canvas


def _axis(view: View, start: float, end: float) -> Axis:
    rows = [row for row in view.rows if row.total]
    samples = [sample for row in rows for launch in row.samples() for sample in launch]
    totals = [row.statistics["total"] for row in rows]
    last = min(max(samples), BEYOND * max(min(total["p95"], WIDEST * total["median"]) for total in totals))
    # A wide interval is what a reader must see, unless it would press everything else against the edge.
    last = max([last, *(high for t in totals if (high := t.get("high")) and high <= WIDEST * t["median"])])
    if is_log(view):
        return logarithmic([min(samples), last], start + 6, end)
    return linear(min(samples) if min(samples) > NEAR * last else 0.0, last, start + 6, end)


def _grid(canvas: Canvas, axis: Axis, unit: str) -> None:
    bottom = canvas.height
    for x, text in axis.labels():
        canvas.line(x, 4, x, bottom, "grid")
        canvas.text(x, bottom + 18, text, anchor="middle")
    canvas.text(axis.end, bottom + 36, f"ms for one {unit}{', logarithmic' if axis.log else ''}", anchor="end")
    canvas.height += 42


def _figures(row: Row) -> str:
    """56.1 ms [55.4–56.8], 3 outliers up to 81.0."""
    total = row.statistics["total"]
    median, bounds = spread(total)
    parts = [f"{median} ms" + (f" [{bounds}]" if bounds else "")]
    if total.get("outliers"):
        slowest = max(sample for launch in row.samples() for sample in launch)
        parts.append(f"{plural(total['outliers'], 'outlier')} up to {number(slowest)}")
    return ", ".join(["wrong", *parts] if row.wrong else parts)


def _label(canvas: Canvas, row: Row, top: float, room: float) -> None:
    kind, width = ("label wrong" if row.wrong else "label"), (room - 12 if room else canvas.width)
    canvas.text(0, top + 15, clipped(row.label, width, bold=True), kind, note=row.label)
    figures = _figures(row)
    canvas.text(0, top + 32, clipped(figures, width), note=figures)


def _strip(canvas: Canvas, row: Row, axis: Axis, top: float) -> None:
    """Dots above, and under them a thin line from p5 to p95, a thick one for the interval, a tick for the median."""
    total, launches = row.statistics["total"], row.samples()
    mark, line = " wrong" if row.wrong else "", top + LANES + 7
    canvas.dots(_dots(launches, axis, top), f"dots{mark}")
    ends = [axis.at(min(total[name], axis.high)) for name in ("p5", "p95")]
    canvas.line(ends[0], line, ends[1], line, f"range{mark}")
    if total.get("low") is not None and total.get("high") is not None:
        ends = [axis.at(min(max(total[name], axis.low), axis.high)) for name in ("low", "high")]
        note = f"median {number(total['median'])} ms, p5 {number(total['p5'])}, p95 {number(total['p95'])}"
        canvas.rect(ends[0], line - 3.5, max(ends[1] - ends[0], 1), 7, f"sure{mark}", note)
    canvas.line(axis.at(total["median"]), top - 2, axis.at(total["median"]), line + 5, f"mid{mark}")
    beyond = [sample for launch in launches for sample in launch if sample > axis.high]
    if beyond or (total.get("high") or 0.0) > axis.high:
        parts = [f"{len(beyond)} beyond the axis, up to {number(max(beyond))} ms"] if beyond else []
        parts += ["the interval ends beyond it too"] if (total.get("high") or 0.0) > axis.high else []
        note = "; ".join(parts)
        canvas.text(axis.end + 13, top + LANES / 2 + 4, "→", "beyond", anchor="end", note=note)


def _dots(launches: Sequence[Sequence[float]], axis: Axis, top: float) -> list[tuple[float, float]]:
    """A lane for each launch; within it, dots of equal times take turns on three heights."""
    lane = LANES / len(launches)
    return [
        (axis.at(sample), top + (number_ + 0.5) * lane + (index % 3 - 1) * lane / 4)
        for number_, launch in enumerate(launches)
        for index, sample in enumerate(launch)
        if sample <= axis.high
    ]


def _label_room(rows: Sequence[Row]) -> float:
    """Width of the labels' column: what the longest text needs, within limits."""
    texts = [text_width(row.label, bold=True) for row in rows] + [text_width(_figures(row)) for row in rows]
    return min(360.0, max(texts) + 16)
