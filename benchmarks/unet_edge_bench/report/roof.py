"""The roofline: how many operations a second a network reaches, against what the machine reached in the same run.

After Williams, Waterman and Patterson, "Roofline: An Insightful Visual Performance Model", CACM 52(4), 2009.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from .axis import Axis, logarithmic
from .canvas import WIDE, Canvas, both, text_width
from .pareto import Box, placed
from .view import Row, View
from .words import number, plural

__all__ = ["featured", "roofline"]

LEFT, BOTTOM = 56, 44  # px, room for the axes' numbers
TALL_WIDE, TALL_NARROW = 430, 360  # px


@dataclass(frozen=True)
class _Work:
    """FLOP a byte, GFLOP/s, name, and the class of its mark."""

    x: float
    y: float
    name: str
    kind: str


def roofline(view: View, layers_of: Row | None) -> str:
    """Models, the layers of one of them, and a roof for each number of threads; empty where nothing was counted.

    Args:
        view: the results.
        layers_of: the row whose layers are shown.
    """
    ceilings = [c for c in view.results.get("ceilings") or [] if c.get("gflops") and c.get("gbytes_per_s")]
    models = [work for row in view.rows if (work := _model(view, row))]
    if not ceilings or not models:
        return ""
    layers = [work for layer in (layers_of.data.get("layers") if layers_of else None) or [] if (work := _layer(layer))]
    return both(functools.partial(_draw, ceilings, models, layers), "FLOP a byte against GFLOP/s, with the roof")


def featured(view: View, order: Sequence[Row]) -> Row | None:
    """The first row of `order`, and then of all, whose layers were timed."""
    return next((row for row in [*order, *view.rows] if any(_layer(x) for x in row.data.get("layers") or [])), None)


def _model(view: View, row: Row) -> _Work | None:
    cost = row.data.get("cost") or {}
    moved = (cost.get("weight_bytes") or 0) + (cost.get("activation_bytes") or 0)
    if not row.total or not cost.get("flops") or not moved:
        return None
    seconds = row.statistics["inference"]["median"] / 1e3
    kind = "point wrong" if row.wrong else "point best"
    return _Work(cost["flops"] / moved, cost["flops"] / seconds / 1e9, view.name(row), kind)


def _layer(layer: Mapping[str, Any]) -> _Work | None:
    if not (layer.get("ms") and layer.get("flops") and layer.get("bytes")):
        return None
    gflops = layer["flops"] / layer["ms"] / 1e6
    return _Work(
        layer["flops"] / layer["bytes"], gflops, str(layer["name"]), f"small {layer.get('bound') or 'compute'}"
    )


def _draw(
    ceilings: Sequence[Mapping[str, Any]], models: Sequence[_Work], layers: Sequence[_Work], width: float
) -> Canvas:
    tall = TALL_WIDE if width == WIDE else TALL_NARROW
    canvas = Canvas(width, tall)
    x, y = _axes(ceilings, [*models, *layers], width, tall)
    for place, text in x.labels():
        canvas.line(place, 8, place, tall - BOTTOM, "grid")
        canvas.text(place, tall - BOTTOM + 20, text, anchor="middle")
    for place, text in y.labels():
        canvas.line(LEFT, place, width, place, "grid")
        canvas.text(LEFT - 8, place + 4, text, anchor="end")
    canvas.text(width, tall - 4, "FLOP per byte moved", anchor="end")
    canvas.text(0, tall - 4, "↑ GFLOP/s")
    roofs = [box for ceiling in ceilings for box in _roof(canvas, ceiling, x, y)]
    for work in layers:
        canvas.circle(x.at(work.x), y.at(work.y), 3.5, work.kind, f"{work.name}: {number(work.y)} GFLOP/s")
    for work in models:
        canvas.circle(x.at(work.x), y.at(work.y), 5.5, work.kind, f"{work.name}: {number(work.y)} GFLOP/s")
    _names(canvas, models, layers, roofs, x, y)
    return canvas


def _axes(
    ceilings: Sequence[Mapping[str, Any]], works: Sequence[_Work], width: float, tall: float
) -> tuple[Axis, Axis]:
    ridges = [c["gflops"] / c["gbytes_per_s"] for c in ceilings]
    x = logarithmic([*(work.x for work in works), *ridges], LEFT, width - 4)
    y = logarithmic([*(work.y for work in works), *(c["gflops"] for c in ceilings)], tall - BOTTOM, 8, gap=34)
    return x, y


def _roof(canvas: Canvas, ceiling: Mapping[str, Any], x: Axis, y: Axis) -> list[Box]:
    """Draw a roof, bandwidth up to the ridge and then arithmetic, and its name. Returns what they cover."""
    ridge = max(ceiling["gflops"] / ceiling["gbytes_per_s"], x.low)
    first = max(x.low, y.low / ceiling["gbytes_per_s"])
    low, corner = (x.at(first), y.at(first * ceiling["gbytes_per_s"])), (x.at(ridge), y.at(ceiling["gflops"]))
    canvas.path([low, corner, (x.end, corner[1])], "roof")
    name = (
        f"{plural(ceiling['threads'], 'thread')}: {ceiling['gflops']:.0f} GFLOP/s, {ceiling['gbytes_per_s']:.0f} GB/s"
    )
    canvas.text(x.end, corner[1] - 6, name, "roofname", anchor="end")
    slope = [(low[0] + (corner[0] - low[0]) * i / 30, low[1] + (corner[1] - low[1]) * i / 30) for i in range(31)]
    around = [(px - 5, py - 7, px + 5, py + 7) for px, py in slope]
    flat = (corner[0], corner[1] - 1, x.end, corner[1] + 1)
    return [*around, flat, (x.end - text_width(name, bold=True), corner[1] - 18, x.end, corner[1])]


def _names(
    canvas: Canvas, models: Sequence[_Work], layers: Sequence[_Work], roofs: Sequence[Box], x: Axis, y: Axis
) -> None:
    """Of the models; layers have theirs under the pointer."""
    around = [(x.at(work.x) - 4, y.at(work.y) - 4, x.at(work.x) + 4, y.at(work.y) + 4) for work in layers]
    points = [(x.at(work.x), y.at(work.y)) for work in models]
    labels = [work.name for work in models]
    box = (LEFT + 2.0, 0.0, x.end, y.start)
    for work, spot in zip(models, placed(labels, points, box, 260, [*roofs, *around]), strict=True):
        if spot:
            canvas.text(*spot, "name", note=work.name)
