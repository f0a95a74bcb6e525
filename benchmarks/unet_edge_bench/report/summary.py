"""The results as Markdown, for pull requests."""

from __future__ import annotations

import html
import re
from collections.abc import Mapping
from typing import Any

from .table import Cell, note_of, result_table
from .verdicts import duels, headline, sentences
from .view import View

__all__ = ["markdown"]

# What Markdown, or a forge's extras to it (mentions, issue links), would take as its own.
SPECIAL = re.compile(r"([\\`*_{}\[\]<>#|~@$!])")
MOST = 12  # sentences on pairs; more are folded away


def markdown(results: Mapping[str, Any]) -> str:
    """A headline, the table, who is faster, and the machine.

    Args:
        results: of the schema "unet-edge-benchmark/1".
    """
    view = View(results)
    head = headline(view)
    known = duels(view)
    blocks = [f"### {_escaped(head.title)}"]
    if view.doubts():
        blocks.append(f"> **Not reliable:** {_escaped('; '.join(view.doubts()))}.")
    lead = [f"**{_escaped(title)}:** {_escaped(text)}" if title else _escaped(text) for title, text in head.lead]
    blocks += ["\n".join(f"- {text}" for text in lead), *_tables(view)]
    notes = [f"- {_escaped(view.name(row))}: {_escaped(note)}" for row in view.rows if (note := note_of(row))]
    if notes:
        blocks.append("\n".join(notes))
    for group in view.groups:
        lines = [f"- {_escaped(line)}" for line in sentences(group, known)]
        if len(lines) > 1:
            blocks.append(_folded(f"Who is faster at {group.title}", lines))
    blocks.append(_small(view))
    return "\n\n".join(blocks) + "\n"


def _tables(view: View) -> list[str]:
    table = result_table(view)
    blocks = []
    for title, rows in table.groups:
        lines = [f"**{_escaped(title)}**\n"] if len(table.groups) > 1 else []
        lines += [_line(["model", *table.titles]), _line([":--", *["--:"] * len(table.titles)], raw=True)]
        lines += [_line([row.label, *map(_cell, cells)]) for row, cells in rows]
        blocks.append("\n".join(lines))
    return blocks


def _cell(cell: Cell) -> str:
    if not cell.below:
        return cell.text
    return f"{cell.text} ({cell.below})" if cell.below.isalpha() else f"{cell.text} [{cell.below}]"


def _line(cells: list[str], raw: bool = False) -> str:
    return f"| {' | '.join(cell if raw else _escaped(cell) for cell in cells)} |"


def _folded(title: str, lines: list[str]) -> str:
    if len(lines) <= MOST:
        return f"{_escaped(title)}:\n\n" + "\n".join(lines)
    return f"<details><summary>{html.escape(title)}</summary>\n\n" + "\n".join(lines) + "\n\n</details>"


def _small(view: View) -> str:
    results, protocol = view.results, view.results["protocol"]
    packages = ", ".join(f"{name} {version}" for name, version in (results["machine"].get("packages") or {}).items())
    how = (
        f"Medians in ms for one {view.unit} with {protocol['confidence']:.0%} intervals; {protocol['launches']} "
        f"launches of {protocol['rounds']} rounds, interleaved. {view.machine()}. "
        f"Python {results['machine'].get('python')}, {packages}. "
        f"{results.get('origin') or ''} {results.get('created') or ''}"
    )
    command = str(results.get("command") or "").replace("`", "'")
    return f"<sub>{_escaped(' '.join(how.split()))}</sub>" + (f"\n\n```\n{command}\n```" if command else "")


def _escaped(text: str) -> str:
    return SPECIAL.sub(r"\\\1", " ".join(text.split()))
