"""Each layer's time as a bar, with the least time that the machine could take for it drawn inside."""

from __future__ import annotations

import functools
from collections.abc import Mapping, Sequence
from typing import Any

from .canvas import WIDE, Canvas, both, clipped
from .view import Row
from .words import number, percent

__all__ = ["bottleneck_of", "layer_bars", "timed_layers"]

MOST = 60  # bars; of a longer network, the layers that take longest
BAR = 14  # px


def timed_layers(row: Row) -> list[Mapping[str, Any]]:
    """The row's layers with a measured time, in the network's order."""
    return [layer for layer in row.data.get("layers") or [] if layer.get("ms")]


def layer_bars(row: Row) -> str:
    """A bar for each layer; empty where none was timed."""
    layers = timed_layers(row)
    shown = sorted(layers, key=lambda layer: -layer["ms"])[:MOST]
    layers = [layer for layer in layers if layer in shown]
    return both(functools.partial(_draw, layers), f"Milliseconds of each layer of {row.label}") if layers else ""


def bottleneck_of(row: Row) -> str:
    """Which layers lose most time above their limit, as a sentence; empty where none was timed."""
    limit = row.data.get("limit")
    return str(limit["bottleneck"]).replace(" %", "\u00a0%") if limit and timed_layers(row) else ""


def _draw(layers: Sequence[Mapping[str, Any]], width: float) -> Canvas:
    canvas = Canvas(width, 2)
    left = 430.0 if width == WIDE else 0.0
    scale = (width - left - 60) / max(max(layer["ms"], layer.get("limit_ms") or 0.0) for layer in layers)
    total = _total(layers)
    for layer in layers:
        top = canvas.height
        share, bound = percent(_share(layer, total)), layer.get("bound") or ""
        kind = str(layer.get("kind") or "")
        if left:
            canvas.text(0, top + 11.5, clipped(str(layer["name"]), 262), "name", note=str(layer["name"]))
            canvas.text(272, top + 11.5, clipped(kind, 96), note=kind)
            canvas.text(left - 14, top + 11.5, share, anchor="end")
        else:
            canvas.text(0, top + 12, clipped(str(layer["name"]), 185), "name", note=str(layer["name"]))
            canvas.text(width, top + 12, clipped(f"{kind} {share}", 125), anchor="end")
            top += 17
        note = f"{layer['name']}: {number(layer['ms'])} ms" + (f", {bound} bound" if bound else "")
        canvas.rect(left, top, max(layer["ms"] * scale, 1), BAR, f"layer {bound}", note)
        if layer.get("limit_ms"):
            canvas.rect(left, top + 4, layer["limit_ms"] * scale, BAR - 8, f"limit {bound}", "its limit")
        end = max(layer["ms"], layer.get("limit_ms") or 0.0) * scale
        canvas.text(left + end + 6, top + 11.5, number(layer["ms"]), "figure")
        canvas.height = top + BAR + (7 if left else 9)
    return canvas


def _total(layers: Sequence[Mapping[str, Any]]) -> float:
    return float(sum(layer["ms"] for layer in layers))


def _share(layer: Mapping[str, Any], total: float) -> float:
    share = layer.get("share")
    return float(share) if share is not None else float(layer["ms"]) / total
