"""The doctor's page: one HTML file, everything inside it, nothing fetched, no script."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unet_edge.data.pairing import Pair
from unet_edge.data.scan import format_value
from unet_edge.html import page_template, picture_uri
from unet_edge_runtime.files import write_text

from .diagnose import Diagnosis
from .pictures import class_colors, draw_pair, sheet_pairs
from .suspicion import Suspicion

__all__ = ["render", "write_page"]

TEMPLATE = Path(__file__).with_name("page.html.j2")
PAIRS_SHOWN = 6  # of one suspicion
TWINS_SHOWN = 4
LISTED = 300  # problems


def write_page(diagnosis: Diagnosis, path: Path) -> None:
    """Write the page, atomically.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: the page cannot be written there.
    """
    write_text(path, render(diagnosis))


def render(diagnosis: Diagnosis) -> str:
    """The page as text; names are escaped."""
    pictures = _Pictures(diagnosis)
    return page_template(TEMPLATE, "data check --report", whole="{:,}".format).render(
        diagnosis=diagnosis,
        pairs=len(diagnosis.looks),
        folder=_folder(diagnosis),
        sizes=[f"{height}×{width} ({count})" for (height, width), count in list(diagnosis.scan.sizes.items())[:5]],
        classes=_classes(diagnosis),
        suspicions=[_shown(suspicion, pictures) for suspicion in diagnosis.suspicions],
        sheet=[pictures.cell(pair, ", ".join(kinds)) for pair, kinds in sheet_pairs(diagnosis)],
        listed=LISTED,
    )


class _Pictures:
    """Pictures as data URIs, each drawn once."""

    def __init__(self, diagnosis: Diagnosis) -> None:
        self.diagnosis = diagnosis
        self.drawn: dict[Pair, str] = {}

    def cell(self, pair: Pair, note: str = "") -> dict[str, str]:
        """A picture with its name and a note; the address is empty where a file cannot be read."""
        if pair not in self.drawn:
            picture = draw_pair(pair, self.diagnosis)
            self.drawn[pair] = picture_uri(picture, "JPEG") if picture else ""
        return {"name": pair.image.name, "uri": self.drawn[pair], "note": note}


def _shown(suspicion: Suspicion, pictures: _Pictures) -> dict[str, Any]:
    val = set(pictures.diagnosis.split.val) if pictures.diagnosis.split else set()
    twins = [
        [pictures.cell(pair, "validation" if pair in val else "training") for pair in both]
        for both in suspicion.twins[:TWINS_SHOWN]
    ]
    cells = [] if twins else [pictures.cell(pair) for pair in suspicion.pairs[:PAIRS_SHOWN]]
    return {"kind": suspicion.kind, "text": suspicion.text, "twins": twins, "cells": cells}


def _folder(diagnosis: Diagnosis) -> str:
    """The images' folder, with the one that it is in: many are just called images."""
    if not diagnosis.looks:
        return "the data set"
    return "/".join(diagnosis.looks[0].pair.image.absolute().parent.parts[-2:])


def _classes(diagnosis: Diagnosis) -> list[dict[str, Any]]:
    colors = class_colors(diagnosis)
    masks = len(diagnosis.scan.values_by_mask)
    return [
        {
            "name": format_value(info.value),
            "color": "rgb({}, {}, {})".format(*colors.get(info.value, (128, 128, 128))),
            "facts": info,
            "masks": masks,
            "objects": info.value != diagnosis.background and not info.ignored,
        }
        for info in diagnosis.classes[:254]
    ]
