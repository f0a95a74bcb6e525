"""How rows are called: an id that says everything, and a label that says what differs."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Hashable, Sequence
from dataclasses import replace
from pathlib import Path

from .plan import Row

__all__ = ["labelled"]

Text = Callable[[Row], str]


def labelled(rows: Sequence[Row]) -> list[Row]:
    """The rows with ids, all different, and labels, different among rows that did the same work.

    What rows of one group share (size, batch, streams) is for the group's title to say.
    """
    name, telling = _model_name(rows), _telling(rows)
    work = [", ".join(filter(None, (text(row) for text in _WORK))) for row in rows]
    labels = [", ".join([name(row), *telling(row)]) for row in rows]
    again = _repeats(list(zip(work, labels, strict=True)))
    ids = [
        ", ".join([name(row), row.backend, does, *filter(None, [row.compute_units])])
        for row, does in zip(rows, work, strict=True)
    ]
    return [
        replace(row, id=id + number, label=label + number)
        for row, id, label, number in zip(rows, ids, labels, again, strict=True)
    ]


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"


_WORK: tuple[Text, ...] = (
    lambda row: f"{row.size[0]}x{row.size[1]}" if row.size else "",
    lambda row: row.precision or "",
    lambda row: f"batch {row.batch}",
    lambda row: _count(row.threads, "thread"),
    lambda row: _count(row.streams, "stream"),
)


def _telling(rows: Sequence[Row]) -> Callable[[Row], list[str]]:
    """What to say of a row besides its model: the choices in which rows differ."""
    precisions = len({row.precision for row in rows if row.precision}) > 1
    threads = len({row.threads for row in rows}) > 1
    return lambda row: [
        text
        for text in (
            row.precision if precisions else None,
            _count(row.threads, "thread") if threads else None,
            row.compute_units,
        )
        if text
    ]


def _model_name(rows: Sequence[Row]) -> Text:
    """The file's name, with its folder's where two are the same."""
    paths = {row.path for row in rows}
    shared = Counter(path.name for path in paths)
    names: dict[Path, str] = {
        path: path.name if shared[path.name] == 1 else f"{path.parent.name}/{path.name}" for path in paths
    }
    return lambda row: names[row.path]


def _repeats(keys: Sequence[Hashable]) -> list[str]:
    """Nothing for the first of equal keys, " #2" for the second, and so on."""
    seen: Counter[Hashable] = Counter()
    found = []
    for key in keys:
        seen[key] += 1
        found.append("" if seen[key] == 1 else f" #{seen[key]}")
    return found
