"""The benchmark's results as one HTML page: everything inside it, nothing fetched, no script."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from unet_edge_runtime.files import write_text

from .layers import bottleneck_of, layer_bars
from .method import facts, noise_text, protocol_text
from .pareto import by_latency, by_size, scored_group
from .roof import featured, roofline
from .stacks import stage_bars, startup_bars
from .steadiness import steadiness
from .strips import strips
from .table import agreement_table, note_of, plan_table, result_table
from .verdicts import Duels, duels, headline, sentences, unbeaten
from .view import Group, Row, View
from .words import bytes_text, joined, number, percent, spread

__all__ = ["render", "write_html"]

TEMPLATE = Path(__file__).with_name("report.html.j2")


def write_html(results: Mapping[str, Any], path: Path | str) -> Path:
    """Write the page, atomically.

    Args:
        results: of the schema "unet-edge-benchmark/1".
        path: of the HTML file; links on the page expect `results.json` beside it.

    Raises:
        MissingExtraError: jinja2 is not installed.
        InputError: the file cannot be written.
    """
    write_text(path, render(results))
    return Path(path)


def render(results: Mapping[str, Any]) -> str:
    """The page as text; all names in `results` are escaped.

    Raises:
        MissingExtraError: jinja2 is not installed.
    """
    from unet_edge.html import page_template  # measuring alone needs nothing but the runtime

    template = page_template(TEMPLATE, "the HTML page", sentence=lambda text: f"{text[:1].upper()}{text[1:]}.")
    from markupsafe import Markup  # comes with jinja2

    view = View(results)
    known = duels(view)
    best = [row for group in view.groups for row in unbeaten(group, known)]
    layers_of = featured(view, best)
    drawings = {name: Markup(drawing) for name, drawing in _drawings(view, layers_of).items()}  # made of escaped parts
    return template.render(
        r=results,
        unit=view.unit,
        groups=len(view.groups),
        scored=group.title if (group := scored_group(view)) else "",
        machine=view.machine(),
        doubts=view.doubts(),
        headline=headline(view),
        tiles=_tiles(view, known),
        fastest={
            rows[0].id for group in view.groups if len(group.ranked) > 1 and len(rows := unbeaten(group, known)) == 1
        },
        notes={row.id: note_of(row) for row in view.rows},
        drawings=drawings,
        results=result_table(view),
        has_limit=any(row.data.get("limit") for row in view.rows),
        matrices=[(group.title, _matrix(group, known)) for group in view.groups if len(group.ranked) > 1],
        ranking=[line for group in view.groups for line in _titled(view, group, sentences(group, known))],
        bottleneck=f"{view.name(layers_of)}: {text}" if layers_of and (text := bottleneck_of(layers_of)) else "",
        layers_of=view.name(layers_of) if layers_of else "",
        layers=[
            {"name": view.name(row), "drawing": Markup(drawing), "note": (row.data.get("limit") or {}).get("note")}
            for row in _first(layers_of, view.rows)
            if (drawing := layer_bars(row))
        ],
        agreement=agreement_table(view),
        references=_references(view),
        plan=plan_table(view),
        noise=noise_text(results),
        protocol=protocol_text(results),
        facts=facts(results),
    )


def _drawings(view: View, layers_of: Row | None) -> dict[str, str]:
    return {
        "strips": strips(view),
        "by_latency": by_latency(view),
        "by_size": by_size(view),
        "stages": stage_bars(view),
        "startup": startup_bars(view),
        "roofline": roofline(view, layers_of),
        "steadiness": steadiness(view.results.get("noise") or {}),
    }


def _tiles(view: View, known: Duels) -> list[dict[str, str]]:
    """The run in four figures, of the first group that has a winner or, without one, a quickest."""
    group = next((group for group in view.groups if group.ranked), None)
    # Large figures would outweigh the warning that they are not to be relied on.
    if group is None or view.doubts():
        return []
    row = unbeaten(group, known)[0]
    where = f" at {group.title}" if len(view.groups) > 1 else ""
    tiles = [
        {"figure": f"{spread(row.statistics['total'])[0]} ms", "text": f"for one {group.unit} with {row.label}{where}"}
    ]
    rivals = [(other, duel) for other in group.ranked if (duel := known.get((row.id, other.id)))]
    faster = [(other, duel) for other, duel in rivals if duel.verdict == "faster"]
    if faster:
        other, duel = max(faster, key=lambda pair: pair[1].ratio["median"] or 0.0)
        tiles.append({"figure": f"{spread(duel.ratio)[0]} ×", "text": f"as fast as {other.label}"})
    checked = [other for other in view.rows if other.data.get("agreement")]
    if checked:
        right = sum(not other.wrong for other in checked)
        tiles.append({"figure": f"{right} of {len(checked)}", "text": f"agree with {_references(view)}"})
    share = (row.data.get("limit") or {}).get("share")
    if share is not None:
        tiles.append({"figure": percent(share), "text": f"of the machine's limit is what {row.label} reaches{where}"})
    memory = row.memory()
    if memory is not None and len(tiles) < 4:
        tiles.append({"figure": bytes_text(memory), "text": f"of memory at most with {row.label}{where}"})
    return tiles


def _matrix(group: Group, known: Duels) -> list[tuple[Row, list[dict[str, str] | None]]]:
    """Rows from the quickest on; each with a cell for every row."""
    rows = sorted(group.ranked, key=lambda row: row.statistics["total"]["median"])
    return [(row, [_duel_cell(row, other, known) for other in rows]) for row in rows]


def _duel_cell(row: Row, other: Row, known: Duels) -> dict[str, str] | None:
    duel = known.get((row.id, other.id))
    if duel is None:
        return None
    shown, bounds = spread(duel.ratio)
    told = "cannot tell" if duel.verdict == "cannot tell" else f"{shown} ×"
    return {"verdict": duel.verdict, "shown": told, "bounds": bounds or number(duel.ratio["median"] or 0.0)}


def _titled(view: View, group: Group, lines: Sequence[str]) -> list[str]:
    return [f"{group.title}: {line}" for line in lines] if len(view.groups) > 1 else list(lines)


def _references(view: View) -> str:
    labels = dict.fromkeys(view.by_id[name].label if name in view.by_id else name for name in view.references)
    return joined(list(labels)) if labels else "nothing"


def _first(row: Row | None, rows: Sequence[Row]) -> list[Row]:
    return [*([row] if row else []), *(other for other in rows if other is not row)]
