"""Pictures of pairs with the outline of their masks, and the contact sheet."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from unet_edge.data.pairing import Pair
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import atomic_path
from unet_edge_runtime.image import to_uint8
from unet_edge_runtime.mask import pack
from unet_edge_runtime.spec import MaskValue, class_color

from .diagnose import Diagnosis
from .fit import mask_edges
from .reduced import read_quickly, reduced, reduced_labels

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["class_colors", "draw_pair", "sheet_pairs", "write_sheet"]

SHOWN = 60  # pairs on a sheet
COLUMNS = 6
SIDE = 240  # pixels of the longer side of a picture
TINT = 0.35
CAPTION = 34  # pixels under a picture, two lines
GAP = 10
PAPER, INK, ALARM = (247, 246, 243), (40, 44, 50), (179, 38, 30)


def class_colors(diagnosis: Diagnosis) -> dict[MaskValue, tuple[int, int, int]]:
    """A colour for every mask value: a colour mask's own, otherwise as predictions show it; white is ignored."""
    colors: dict[MaskValue, tuple[int, int, int]] = {}
    for index, value in enumerate(diagnosis.scan.classes):
        colors[value] = value if isinstance(value, tuple) else class_color(index)
    if diagnosis.scan.ignore is not None:
        colors[diagnosis.scan.ignore] = (255, 255, 255)
    return colors


def sheet_pairs(diagnosis: Diagnosis, limit: int = SHOWN) -> list[tuple[Pair, tuple[str, ...]]]:
    """The pairs of a sheet with what is suspected of each: the suspicious first, then some from all over the set."""
    kinds: dict[Pair, dict[str, None]] = {}
    alone = [s for s in diagnosis.suspicions if s.kind != "leak"]
    # In turns, so that one suspicion of many pairs leaves room for the others.
    for place in range(limit):
        for suspicion in [*alone, *(s for s in diagnosis.suspicions if s.kind == "leak")]:
            if place < len(suspicion.pairs):
                kinds.setdefault(suspicion.pairs[place], {})[suspicion.kind] = None
    shown = [(pair, tuple(found)) for pair, found in list(kinds.items())[: limit * 2 // 3]]
    calm = [look.pair for look in diagnosis.looks if look.pair not in kinds]
    room = limit - len(shown)
    chosen = np.unique(np.linspace(0, len(calm) - 1, min(room, len(calm))).round().astype(int))
    return [*shown, *((calm[number], ()) for number in chosen.tolist())]


def draw_pair(pair: Pair, diagnosis: Diagnosis, side: int = SIDE) -> Image.Image | None:
    """The image with its classes tinted and outlined, at most `side` pixels long; None where a file is unreadable."""
    try:
        array = read_quickly(pair.image, side)[1]
        picture = reduced(to_uint8(array).astype(np.float32), side)
        mask = reduced_labels(pair.mask, picture.shape)
    except InputError:
        return None
    values = class_colors(diagnosis)
    for value, color in values.items():
        if value != diagnosis.background:
            area = mask == pack(value)
            picture[area] = picture[area] * (1 - TINT) + np.asarray(color, np.float32) * TINT
    _outline(picture, mask, values, diagnosis.background)
    return Image.fromarray(picture.round().clip(0, 255).astype(np.uint8))


def write_sheet(diagnosis: Diagnosis, path: Path) -> None:
    """Write the contact sheet as a PNG, atomically. Raises `InputError` where that is not possible."""
    shown = [(pair, kinds, draw_pair(pair, diagnosis)) for pair, kinds in sheet_pairs(diagnosis)]
    cell = SIDE + GAP, SIDE + CAPTION + GAP
    rows = -(-max(1, len(shown)) // COLUMNS)
    sheet = Image.new("RGB", (COLUMNS * cell[0] + GAP, rows * cell[1] + GAP), PAPER)
    draw, font = ImageDraw.Draw(sheet), ImageFont.load_default(size=13)
    for (pair, kinds, picture), (left, top) in zip(shown, _places(cell), strict=False):
        if picture:
            inset = left + (SIDE - picture.width) // 2, top + (SIDE - picture.height) // 2
            sheet.paste(picture, inset)
            if kinds:
                box = (inset[0] - 3, inset[1] - 3, inset[0] + picture.width + 2, inset[1] + picture.height + 2)
                draw.rectangle(box, outline=ALARM, width=3)
        draw.text((left, top + SIDE + 3), _short(pair.image.name, font), INK, font)
        draw.text((left, top + SIDE + 18), ", ".join(kinds) if picture else "cannot be read", ALARM, font)
    with atomic_path(path) as temporary:
        sheet.save(temporary, "PNG", optimize=True)


def _places(cell: tuple[int, int]) -> Iterator[tuple[int, int]]:
    number = 0
    while True:
        yield GAP + number % COLUMNS * cell[0], GAP + number // COLUMNS * cell[1]
        number += 1


def _outline(
    picture: NDArray[np.float32],
    mask: NDArray[np.unsignedinteger],
    colors: dict[MaskValue, tuple[int, int, int]],
    first: MaskValue | None,
) -> None:
    """Draw the classes' outer pixels in full colour; the first class's side of an outline stays as it is."""
    edges = mask_edges(mask)
    for value, color in colors.items():
        if value != first:
            picture[edges & (mask == pack(value))] = color


def _short(name: str, font: ImageFont.FreeTypeFont | ImageFont.ImageFont) -> str:
    text = name
    while font.getlength(text) > SIDE and len(text) > 4:
        text = text[: len(text) // 2 - 1] + "…" + text[len(text) // 2 + 2 :]
    return text
