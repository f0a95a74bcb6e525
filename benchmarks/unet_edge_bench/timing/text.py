"""The results on a terminal: a table, and what follows from it in plain sentences."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet_edge_bench.report.table import Table, note_of, result_table
from unet_edge_bench.report.verdicts import duels, group_sentence, sentences
from unet_edge_bench.report.view import View
from unet_edge_bench.report.words import interval

__all__ = ["comparison_text", "results_text"]

MAX_SENTENCES = 12
"""For more pairs than that only the fastest is told; the page has all of them."""


def results_text(results: Mapping[str, Any]) -> str:
    """Table, notes on rows that are wrong or failed, ranking, and what to think of the machine."""
    view = View(results)
    parts = [_table(result_table(view)), _notes(view), *_ranking(view), _machine(view)]
    return "\n\n".join(part for part in parts if part)


def comparison_text(comparison: Mapping[str, Any]) -> str:
    """One line a row: the new time over the base's, and whether that is a change."""
    width = max((len(row["label"]) for row in comparison["rows"]), default=0)
    lines = ["compared with the base (new time / base time):"]
    for row in comparison["rows"]:
        ratio = f"{interval(row['ratio'])}  " if row["ratio"] else ""
        limit = f"  SLOWER THAN ALLOWED ({comparison['allowed_slower']:.1%})" if row["failed"] and row["ratio"] else ""
        lines.append(f"  {row['label']:{width}}  {ratio}{row['verdict']}{limit}")
    lines += [f"  {label:{width}}  only in the base" for label in comparison["missing"]]
    if comparison["machine"]:
        lines.append("the machines differ, so times do too: " + "; ".join(comparison["machine"]))
    if comparison["unreliable"]:
        lines.append(f"the machine was not steady in the {' and the '.join(comparison['unreliable'])} run")
    return "\n".join(lines)


def _table(table: Table) -> str:
    """Columns as wide as what stands in them; numbers end in line."""
    head = ["", *table.titles]
    lines: list[Sequence[str]] = []
    for title, rows in table.groups:
        lines.append([f"network input {title}"])
        for row, cells in rows:
            texts = [f"{cell.text} [{cell.below}]" if cell.below else cell.text for cell in cells]
            mark = {"wrong": "WRONG ", "failed": "failed ", "untimed": "untimed "}.get(row.state, "")
            lines.append([f"  {mark}{row.label}", *texts])
    full = [head, *(line for line in lines if len(line) > 1)]
    widths = [max(len(line[column]) for line in full) for column in range(len(head))]
    widths[0] = max([widths[0], *(len(line[0]) for line in lines)])
    return "\n".join(_aligned(line, widths) for line in [head, *lines])


def _aligned(line: Sequence[str], widths: Sequence[int]) -> str:
    first, *others = line
    return "  ".join(
        [f"{first:{widths[0]}}", *(f"{text:>{width}}" for text, width in zip(others, widths[1:], strict=False))]
    ).rstrip()


def _notes(view: View) -> str:
    return "\n".join(f"{row.label}: {row.state}: {note_of(row)}" for row in view.rows if note_of(row))


def _ranking(view: View) -> list[str]:
    known = duels(view)
    found = []
    for group in view.groups:
        lines = sentences(group, known)
        if not lines or len(lines) > MAX_SENTENCES:
            lines = [group_sentence(group, known)]
        prefix = [f"{group.title}:"] if len(view.groups) > 1 else []
        found.append("\n".join([*prefix, *lines]))
    return found


def _machine(view: View) -> str:
    noise = view.results["noise"]
    lines = [] if noise["reliable"] else [f"NOT RELIABLE: {'; '.join(noise['reasons'])}"]
    if not view.results.get("complete", True):
        lines.append("INCOMPLETE: the run was interrupted")
    return "\n".join([*lines, f"{view.machine()}; timed on {view.results['origin']}"])
