"""How steady the machine was: the fixed reference loop, before, in every round, and after."""

from __future__ import annotations

import functools
import statistics
from collections.abc import Mapping, Sequence
from typing import Any

from .axis import linear
from .canvas import Canvas, both

__all__ = ["steadiness"]

TALL, LEFT, BOTTOM = 210, 46, 40  # px: height, room for the axes' numbers
ROOM = 0.1  # share of the median that the axis shows on either side at least: or nothing would look like a storm


def steadiness(noise: Mapping[str, Any]) -> str:
    """The loop's times as a line; empty without any."""
    launches = [[value for value in _list(launch) if value is not None] for launch in noise.get("samples_ms") or []]
    launches = [launch for launch in launches if launch]
    ends = [_list(noise.get("before_ms")), _list(noise.get("after_ms"))]
    if not launches:
        return ""
    before, after = (statistics.median(end) if end else None for end in ends)
    return both(functools.partial(_draw, launches, before, after), "Milliseconds of the fixed reference loop")


def _list(value: Any) -> list[float]:
    if value is None:
        return []
    return list(value) if isinstance(value, Sequence) else [value]


def _draw(launches: Sequence[Sequence[float]], before: float | None, after: float | None, width: float) -> Canvas:
    canvas = Canvas(width, TALL)
    values = [value for launch in launches for value in launch]
    ends = [value for value in (before, after) if value is not None]
    middle_ms = statistics.median(values)
    low, high = (choose([*values, *ends, middle_ms * share]) for choose, share in ((min, 1 - ROOM), (max, 1 + ROOM)))
    y = linear(low, high, TALL - BOTTOM, 10, gap=40)
    for place, text in y.labels():
        canvas.line(LEFT, place, width, place, "grid")
        canvas.text(LEFT - 8, place + 4, text, anchor="end")
    canvas.text(0, TALL - 2, "↑ ms")
    middle = y.at(middle_ms)
    canvas.line(LEFT, middle, width, middle, "middle")
    step = (width - LEFT - 24) / (len(values) + 1 + len(launches))
    x = LEFT + 12.0
    if before is not None:
        canvas.circle(x, y.at(before), 4, "point hollow", f"before: {before:.2f} ms")
    for index, launch in enumerate(launches):
        points = [(x + step * (i + 1), y.at(value)) for i, value in enumerate(launch)]
        canvas.path(points, "curve")
        for (px, py), value in zip(points, launch, strict=True):
            canvas.circle(px, py, 2.8, "point best", f"launch {index + 1}: {value:.2f} ms")
        canvas.text((points[0][0] + points[-1][0]) / 2, TALL - BOTTOM + 20, str(index + 1), anchor="middle")
        x = points[-1][0] + step * 0.6
    if after is not None:
        canvas.circle(width - 10, y.at(after), 4, "point hollow", f"after: {after:.2f} ms")
    canvas.text(width, TALL - 2, "launch", anchor="end")
    return canvas
