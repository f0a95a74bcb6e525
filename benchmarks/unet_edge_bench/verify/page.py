"""One HTML page of a comparison: everything inside it, nothing fetched, no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unet_edge.html import page_template
from unet_edge_runtime.files import write_text

from .pictures import FLIP_COLORS, heat_colors, worst_rows
from .report import PairReport, Verification
from .text import number, percent, share

__all__ = ["render", "write_page"]

TEMPLATE = Path(__file__).with_name("page.html.j2")
LISTED = 200  # images in a pair's table


def write_page(result: Verification, path: Path) -> None:
    """Write the page, atomically.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: the page cannot be written there.
    """
    write_text(path, render(result))


def render(result: Verification) -> str:
    """The page as text; names are escaped."""
    filters = {"number": number, "share": share, "percent": percent, "whole": "{:,}".format}
    return page_template(TEMPLATE, "verify --html", **filters).render(
        result=result,
        pairs=[_shown(pair) for pair in result.pairs],
        sides=_sides(result),
        title=_title(result),
        ramp=", ".join(_rgb(color) for color in heat_colors(12)),
        flips={name: _rgb(color) for name, color in FLIP_COLORS.items()},
        listed=LISTED,
    )


def _shown(pair: PairReport) -> dict[str, Any]:
    rows, top = worst_rows(pair)
    colors = [_rgb(info.color) for info in pair.reference.spec.classes]
    return {"report": pair, "m": pair.measured, "rows": rows, "top": top, "colors": colors}


def _sides(result: Verification) -> list[dict[str, Any]]:
    sides = [("reference", result.pairs[0].reference), *(("candidate", pair.candidate) for pair in result.pairs)]
    return [{"role": role, **side.facts()} for role, side in sides]


def _title(result: Verification) -> str:
    reference, failed = result.pairs[0].reference.name, [pair for pair in result.pairs if not pair.passed]
    if not failed:
        names = [pair.candidate.name for pair in result.pairs]
        listed = names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"
        return f"{listed} agree{'s' if len(names) == 1 else ''} with {reference}"
    if len(failed) == 1:
        return f"{failed[0].candidate.name} does not agree with {reference}"
    return f"{len(failed)} of {len(result.pairs)} candidates do not agree with {reference}"


def _rgb(color: Any) -> str:
    return "rgb({}, {}, {})".format(*(int(value) for value in color))
