"""Geometry of the page's charts: numbers in, coordinates out; the template draws them."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Chart", "Line", "Strip", "curve_charts", "strip_chart"]

WIDTH, HEIGHT = 520, 220  # of a curve chart, in SVG units
LEFT, RIGHT, TOP, BOTTOM = 44, 12, 12, 30  # margins for the axes' numbers
TRACK = 640  # length of the time axis of the strips


@dataclass(frozen=True)
class Line:
    """A curve: `points` as SVG writes them, its last point, a colour (none: the text's own)."""

    name: str
    points: str
    end: tuple[float, float]
    color: str | None = None


@dataclass(frozen=True)
class Chart:
    """Curves with their ticks: (position, text)."""

    title: str
    lines: list[Line]
    x_ticks: list[tuple[float, str]]
    y_ticks: list[tuple[float, str]]
    width: int = WIDTH
    height: int = HEIGHT
    left: int = LEFT
    bottom: float = HEIGHT - BOTTOM
    right: float = WIDTH - RIGHT


@dataclass(frozen=True)
class Strip:
    """One backend on the time axis: every sample as a dot, p5 to p95 as a bar, the median as a tick; units of SVG."""

    name: str
    p5: float
    median: float
    p95: float
    dots: list[tuple[float, float]] = field(default_factory=list)


def curve_charts(training: Mapping[str, Any], colors: Sequence[str], background: int | None) -> list[Chart]:
    """Training loss, and validation Dice by class, over the epochs.

    Args:
        training: `loss` and `validation` of the results.
        colors: CSS colours by label.
        background: label left out, or None.
    """
    loss = [(row["epoch"], row["loss"]) for row in training["loss"]]
    charts = [_chart("Training loss", {"loss": loss}, {}, 0.0, None)]
    curves: dict[str, list[tuple[float, float]]] = {}
    tints: dict[str, str] = {}
    for row in training["validation"]:
        for label, scores in enumerate(row["classes"]):
            if label != background and scores["dice"] is not None:
                curves.setdefault(scores["name"], []).append((row["epoch"], scores["dice"]))
                tints[scores["name"]] = colors[label]
    if curves:
        # What counts is how it ends: the first epochs, near 0, would press that against the upper edge.
        lowest = min(value for points in curves.values() for _, value in points[len(points) // 2 :])
        charts.append(_chart("Validation Dice", curves, tints, max(0, math.floor(lowest * 10 - 0.5) / 10), 1.0))
    return charts


def strip_chart(totals: Mapping[str, Mapping[str, Any]]) -> tuple[list[Strip], list[tuple[float, str]]]:
    """Times of whole images on one axis that starts at 0.

    Args:
        totals: statistics and samples in milliseconds, by backend.

    Returns:
        A strip for each backend, and the axis's ticks.
    """
    longest = max((max(t["samples"]) for t in totals.values()), default=0.0) or 1.0
    ticks = _ticks(0.0, longest)
    scale = TRACK / max(longest, ticks[-1])
    strips = []
    for name, t in totals.items():
        # Dots of equal times would hide each other: they take turns on five heights.
        dots = [(round(value * scale, 2), (i % 5 - 2) * 3.0) for i, value in enumerate(t["samples"])]
        p5, median, p95 = (round(t[key] * scale, 2) for key in ("p5", "median", "p95"))
        strips.append(Strip(name, p5, median, p95, dots))
    return strips, [(round(tick * scale, 2), f"{tick:g}") for tick in ticks]


def _chart(
    title: str,
    curves: Mapping[str, list[tuple[float, float]]],
    colors: Mapping[str, str],
    low: float,
    high: float | None,
) -> Chart:
    epochs = [x for points in curves.values() for x, _ in points] or [1.0]
    values = [y for points in curves.values() for _, y in points] or [1.0]
    y_ticks = _ticks(low, high or max(values))
    top = max(y_ticks[-1], high or max(values))
    first, last = min(epochs), max(*epochs, min(epochs) + 1)

    def x_of(epoch: float) -> float:
        return round(LEFT + (epoch - first) / (last - first) * (WIDTH - LEFT - RIGHT), 2)

    def y_of(value: float) -> float:
        return round(HEIGHT - BOTTOM - (value - low) / ((top - low) or 1) * (HEIGHT - TOP - BOTTOM), 2)

    lines = [
        Line(name, " ".join(f"{x_of(x)},{y_of(y)}" for x, y in points), (x_of(points[-1][0]), y_of(points[-1][1])),
             colors.get(name))
        for name, points in curves.items() if points
    ]  # fmt: skip
    step = max(1, math.ceil((last - first) / 10))
    x_ticks = [(x_of(epoch), str(epoch)) for epoch in range(math.ceil(first), math.floor(last) + 1, step)]
    return Chart(title, lines, x_ticks, [(y_of(tick), f"{tick:g}") for tick in y_ticks])


def _ticks(low: float, high: float) -> list[float]:
    """Three to seven round numbers from `low` to at least nearly `high`."""
    span = max(high - low, 1e-9)
    power = 10 ** math.floor(math.log10(span))
    step = next(power * factor for factor in (0.1, 0.2, 0.5, 1, 2, 5, 10) if span / (power * factor) <= 6)
    return [round(low + i * step, 10) for i in range(math.floor(span / step + 1e-6) + 1)]
