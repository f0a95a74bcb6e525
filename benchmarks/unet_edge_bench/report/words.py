"""Numbers as people write them: with units, and no more digits than the measurement has."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

__all__ = ["bytes_text", "duration", "interval", "joined", "number", "percent", "plural", "scientific", "spread"]

SUPERSCRIPTS = str.maketrans("-0123456789", "⁻⁰¹²³⁴⁵⁶⁷⁸⁹")


def number(value: float) -> str:
    """Three digits: 0.0123, 1.23, 12.3, 123, 1,234; whole numbers without a point."""
    if value == round(value) and abs(value) < 1e15:
        return f"{value:,.0f}"
    decimals = max(0, 2 - math.floor(math.log10(abs(value))))
    return f"{value:,.{min(decimals, 9)}f}"


def interval(estimate: Mapping[str, float | None], unit: str = "") -> str:
    """56.1 [55.4–56.8]: to the first digit in which the interval's ends differ from its middle.

    The middle alone where the interval is not known.
    """
    median, bounds = spread(estimate)
    return " ".join(filter(None, [median, bounds and f"[{bounds}]", unit]))


def spread(estimate: Mapping[str, float | None]) -> tuple[str, str]:
    """The two parts of `interval`: ("56.1", "55.4–56.8"); the second is empty where it is not known."""
    median, low, high = (estimate[name] for name in ("median", "low", "high"))
    assert median is not None
    if low is None or high is None:
        return number(median), ""
    decimals = _decimals(median, high - low)
    return f"{median:,.{decimals}f}", f"{low:,.{decimals}f}–{high:,.{decimals}f}"


def duration(ms: float) -> str:
    """310 ms, 2.41 s, 3 min 5 s."""
    if ms >= 60_000:
        return f"{ms // 60_000:.0f} min {ms % 60_000 / 1000:.0f} s"
    return f"{ms / 1000:.2f} s" if ms >= 1000 else f"{number(ms)} ms" if ms < 10 else f"{ms:.0f} ms"


def bytes_text(count: float) -> str:
    """7.84 MB, in powers of ten."""
    for unit, size in (("GB", 1e9), ("MB", 1e6)):
        if count >= size:
            return f"{count / size:.3g} {unit}" if count < 999.5 * size else f"{count / size:,.0f} {unit}"
    return f"{count / 1e3:.3g} kB"


def percent(share: float) -> str:
    """78 %, 3.2 %, <0.1 %; the sign does not leave its number at the end of a line."""
    if 0 < share < 0.0005:
        return "<0.1\u00a0%"
    return (f"{100 * share:.0f}" if share >= 0.0995 or share == 0 else f"{100 * share:.1f}") + "\u00a0%"


def scientific(value: float) -> str:
    """1.1 × 10⁻⁴; plain where that is short."""
    if value == 0 or 0.01 <= abs(value) < 1000:
        return f"{value:.3g}"
    digits, _, power = f"{value:.1e}".partition("e")
    return f"{digits} × 10{str(int(power)).translate(SUPERSCRIPTS)}"


def plural(count: int, noun: str) -> str:
    """1 launch, 5 launches."""
    ending = "" if count == 1 else "es" if noun.endswith(("ch", "sh", "s")) else "s"
    return f"{count:,} {noun}{ending}"


def joined(names: Sequence[Any], last: str = "and") -> str:
    """A, B and C."""
    texts = [str(name) for name in names]
    return texts[0] if len(texts) == 1 else f"{', '.join(texts[:-1])} {last} {texts[-1]}"


def _decimals(value: float, width: float) -> int:
    """As many as three digits of the value need, or the first digit of half the interval's width."""
    places = [2 - math.floor(math.log10(abs(part))) for part in (value, 100 * width / 2) if part]
    return min(4, max(0, *places)) if places else 0
