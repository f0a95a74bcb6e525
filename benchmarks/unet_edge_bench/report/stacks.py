"""Bars made of parts: what an image's time is made of, and what a start costs."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence

from .axis import linear
from .canvas import WIDE, Canvas, both, clipped, text_width
from .view import STAGES, Row, View
from .words import duration, number

__all__ = ["STARTUP", "stage_bars", "startup_bars"]

STARTUP = ("import", "load", "first_run")
BAR = 18  # px, a bar's height

Bar = tuple[Row, Sequence[float]]
Panel = tuple[str, Sequence[Bar]]


def stage_bars(view: View) -> str:
    """Medians of preprocess, inference and postprocess, each group on an axis of its own; empty without any."""
    panels: list[Panel] = []
    for group in view.groups:
        bars = [(row, [float(row.statistics[stage]["median"]) for stage in STAGES]) for row in group.timed]
        if bars:
            panels.append((group.title if len(view.groups) > 1 else "", bars))
    return _both(panels, "stage", lambda ms: f"{number(ms)} ms", f"Milliseconds of each stage of one {view.unit}")


def startup_bars(view: View) -> str:
    """Medians over the launches of import, load and first run; empty without any."""
    bars: list[Bar] = []
    for row in view.rows:
        steps = [row.startup(step) for step in STARTUP]
        if row.total and any(steps):
            bars.append((row, [step or 0.0 for step in steps]))
    names = {row.id: view.name(row) for row, _ in bars}
    return _both([("", bars)] if bars else [], "start", duration, "Time of each step of a start", names)


def _both(
    panels: Sequence[Panel], kind: str, text: Callable[[float], str], label: str, names: dict[str, str] | None = None
) -> str:
    return both(functools.partial(_draw, panels, kind, text, names or {}), label) if panels else ""


def _draw(
    panels: Sequence[Panel], kind: str, text: Callable[[float], str], names: dict[str, str], width: float
) -> Canvas:
    canvas = Canvas(width, 4)
    labels = [names.get(row.id, row.label) for _, bars in panels for row, _ in bars]
    room = min(330.0, max(text_width(label) for label in labels) + 14) if width == WIDE else 0.0
    for title, bars in panels:
        if title:
            canvas.text(0, canvas.height + 14, title, "group")
            canvas.height += 28
        longest = max(sum(parts) for _, parts in bars)
        # Totals stand behind the bars.
        axis = linear(0.0, longest, room, width - 86)
        scale = (axis.end - axis.start) / longest
        for row, parts in bars:
            _bar(canvas, names.get(row.id, row.label), parts, room, scale, kind, text, row.wrong)
        canvas.height += 12
    canvas.height -= 8
    return canvas


def _bar(
    canvas: Canvas,
    label: str,
    parts: Sequence[float],
    room: float,
    scale: float,
    kind: str,
    text: Callable[[float], str],
    wrong: bool,
) -> None:
    top = canvas.height
    if not room:
        canvas.text(0, top + 13, clipped(label, canvas.width), "wrong" if wrong else "name", note=label)
        top += 19
    else:
        canvas.text(0, top + 13.5, clipped(label, room - 12), "wrong" if wrong else "name", note=label)
    x = room
    for index, part in enumerate(parts):
        canvas.rect(x, top, max(part * scale - 1, 0.5), BAR, f"{kind}{index}", text(part))
        x += part * scale
    canvas.text(x + 6, top + 13.5, text(sum(parts)), "figure")
    canvas.height = top + BAR + 9
