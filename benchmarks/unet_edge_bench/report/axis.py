"""Axes: values to positions, and round numbers for their ticks."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import dataclass

from .words import number

__all__ = ["Axis", "linear", "logarithmic"]

LOG_STEPS = (
    (1, 1.5, 2, 3, 4, 5, 7),
    (1, 2, 3, 5),
    (1, 2, 5),
    (1, 3),
    (1,),
    (0.1,),
)  # tick factors within a decade, from many ticks to few


@dataclass(frozen=True)
class Axis:
    """Values from `low` to `high` on the way from `start` to `end`, in pixels; upwards where end < start."""

    low: float
    high: float
    start: float
    end: float
    ticks: tuple[float, ...]
    log: bool = False

    def at(self, value: float) -> float:
        """The position of a value."""
        if self.log:
            share = math.log(value / self.low) / math.log(self.high / self.low)
        else:
            share = (value - self.low) / (self.high - self.low)
        return self.start + share * (self.end - self.start)

    def labels(self) -> list[tuple[float, str]]:
        """Position and text of each tick."""
        if self.log:
            return [(self.at(tick), number(tick)) for tick in self.ticks]
        step = self.ticks[1] - self.ticks[0] if len(self.ticks) > 1 else self.ticks[0]
        decimals = max(0, -math.floor(math.log10(step) + 1e-9)) if step else 0
        return [(self.at(tick), f"{tick:,.{decimals}f}") for tick in self.ticks]


def linear(low: float, high: float, start: float, end: float, gap: float = 70) -> Axis:
    """An axis from `low` to `high` at least; its ends are ticks, and ticks are about `gap` pixels apart."""
    if not high > low:
        high = low + (abs(low) or 1.0)
    step = _nice((high - low) / max(1.0, abs(end - start) / gap))
    first, last = math.floor(low / step + 1e-9), math.ceil(high / step - 1e-9)
    ticks = tuple(round(i * step, 12) for i in range(first, last + 1))
    return Axis(ticks[0], ticks[-1], start, end, ticks)


def logarithmic(values: Sequence[float], start: float, end: float, gap: float = 46) -> Axis:
    """A logarithmic axis around positive values, with ticks that stand at least `gap` pixels apart."""
    low, high = min(values), max(values)
    # Room at both ends, and never less than half a decade: or noise would look like a difference.
    middle, half = math.sqrt(low * high), max(math.log10(high / low) / 2 * 1.12, 0.25)
    low, high = middle / 10**half, middle * 10**half
    decades = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    axis = Axis(low, high, start, end, (), log=True)
    for factors in LOG_STEPS:
        ticks = tuple(t for d in decades for factor in factors if low <= (t := factor * 10.0**d) <= high)
        places = [axis.at(tick) for tick in ticks]
        if all(abs(b - a) >= gap for a, b in itertools.pairwise(places)):
            break
    return Axis(low, high, start, end, ticks, log=True)


def _nice(step: float) -> float:
    power = 10.0 ** math.floor(math.log10(step))
    return next(factor * power for factor in (1, 2, 5, 10) if factor * power >= step * 0.999)
