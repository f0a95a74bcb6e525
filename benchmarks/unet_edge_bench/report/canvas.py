"""Drawings in SVG: shapes in, text out. Sizes are CSS pixels; colours are classes that the page's style defines."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from html import escape

__all__ = ["HALF", "NARROW", "WIDE", "Canvas", "both", "clipped", "text_width"]

WIDE, HALF, NARROW = 986, 458, 318  # what a card holds at 1280 px, half of that, and at 390 px
TEXT = 12  # px, the size of all text in drawings unless its class is "label"
LABEL = 13  # px, bold
WIDEST = 0.64  # em an average character of the widest of the usual fonts takes (DejaVu Sans; bold: WIDEST_BOLD)
WIDEST_BOLD = 0.7


class Canvas:
    """A drawing that grows downwards."""

    def __init__(self, width: float, height: float = 0.0) -> None:
        self.width, self.height = width, height
        self._parts: list[str] = []

    def line(self, x1: float, y1: float, x2: float, y2: float, kind: str) -> None:
        """A straight line."""
        self._parts.append(f'<line class="{escape(kind)}" x1="{_n(x1)}" y1="{_n(y1)}" x2="{_n(x2)}" y2="{_n(y2)}"/>')

    def rect(self, x: float, y: float, width: float, height: float, kind: str, note: str = "") -> None:
        """A box with slightly round corners; `note` is shown under the pointer."""
        shape = (
            f'class="{escape(kind)}" x="{_n(x)}" y="{_n(y)}" width="{_n(max(width, 0.0))}" height="{_n(height)}" rx="2"'
        )
        self._parts.append(f"<rect {shape}>{_title(note)}</rect>" if note else f"<rect {shape}/>")

    def circle(self, x: float, y: float, radius: float, kind: str, note: str = "") -> None:
        """A filled circle; `note` is shown under the pointer."""
        self._parts.append(
            f'<circle class="{escape(kind)}" cx="{_n(x)}" cy="{_n(y)}" r="{_n(radius)}">{_title(note)}</circle>'
        )

    def cross(self, x: float, y: float, radius: float, kind: str, note: str = "") -> None:
        """A diagonal cross, the mark of what is wrong."""
        arms = f"M{_n(x - radius)} {_n(y - radius)}L{_n(x + radius)} {_n(y + radius)}"
        arms += f"M{_n(x - radius)} {_n(y + radius)}L{_n(x + radius)} {_n(y - radius)}"
        self._parts.append(f'<path class="{escape(kind)}" d="{arms}">{_title(note)}</path>')

    def path(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """A line through points."""
        steps = "L".join(f"{_n(x)} {_n(y)}" for x, y in points)
        self._parts.append(f'<path class="{escape(kind)}" d="M{steps}"/>')

    def dots(self, points: Iterable[tuple[float, float]], kind: str) -> None:
        """Many dots in one element; those on the same half pixel are one."""
        places = sorted({(round(x * 2) / 2, round(y * 2) / 2) for x, y in points})
        if places:
            # A sub-path without length is drawn as a dot by round line caps (SVG 2, section 13.5).
            self._parts.append(
                f'<path class="{escape(kind)}" d="{"".join(f"M{_n(x)} {_n(y)}h0" for x, y in places)}"/>'
            )

    def text(self, x: float, y: float, text: str, kind: str = "", anchor: str = "start", note: str = "") -> None:
        """A line of text whose base line is at y; anchor: start, middle or end."""
        where = f'x="{_n(x)}" y="{_n(y)}"' + (f' class="{escape(kind)}"' if kind else "")
        if anchor != "start":
            where += f' text-anchor="{anchor}"'
        self._parts.append(f"<text {where}>{_title(note)}{escape(text)}</text>")

    def svg(self, label: str, kind: str = "") -> str:
        """The drawing as an element; `label` says what it shows to those who cannot see it."""
        box = f'viewBox="0 0 {_n(self.width)} {_n(self.height)}"'
        return f'<svg class="{escape(kind)}" {box} role="img" aria-label="{escape(label)}">{"".join(self._parts)}</svg>'


def both(draw: Callable[[float], Canvas], label: str, wide: float = WIDE) -> str:
    """A drawing made twice, for a screen and for a phone; the page's style shows one of them."""
    return draw(wide).svg(label, "wide") + draw(NARROW).svg(label, "narrow")


def text_width(text: str, bold: bool = False) -> float:
    """Pixels that a text takes at most, so that what is laid out with it never overlaps."""
    return len(text) * (LABEL * WIDEST_BOLD if bold else TEXT * WIDEST)


def clipped(text: str, room: float, bold: bool = False) -> str:
    """The text, or as much of its two ends as `room` pixels hold: names that differ often do so at one of them."""
    if text_width(text, bold) <= room:
        return text
    kept = max(2, int(room / text_width("x", bold)) - 1)
    return f"{text[: kept - kept // 2]}…{text[len(text) - kept // 2 :]}"


def _n(value: float) -> str:
    return f"{value:.1f}".removesuffix(".0")


def _title(note: str) -> str:
    return f"<title>{escape(note)}</title>" if note else ""
