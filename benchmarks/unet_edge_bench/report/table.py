"""The table of results, as text for the page and for Markdown alike."""

from __future__ import annotations

import functools
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from .view import Row, View
from .words import bytes_text, duration, number, percent, plural, scientific, spread

__all__ = ["Cell", "Table", "agreement_table", "note_of", "plan_table", "result_table"]


@dataclass(frozen=True)
class Cell:
    """A value, what stands smaller below it, and a class: "" or ok, wrong, untimed, failed for a badge."""

    text: str = ""
    below: str = ""
    kind: str = ""


@dataclass(frozen=True)
class Table:
    """Titles of the columns after the first, and rows in groups."""

    titles: list[str]
    groups: list[tuple[str, list[tuple[Row, list[Cell]]]]]


def result_table(view: View) -> Table:
    """Every row. Columns in which nothing stands are left out."""
    columns: dict[str, Callable[[Row], Cell]] = {
        "median, ms": _median,
        "p95": lambda row: _statistic(row, "p95"),
        "p99": lambda row: _statistic(row, "p99"),
        "images/s": _throughput,
        "load": lambda row: _startup(row, "load"),
        "first run": lambda row: _startup(row, "first_run"),
        "memory": lambda row: _bytes(row.memory()),
        "file": lambda row: _bytes(row.data.get("bytes")),
        "agreement": lambda row: _agreement(view, row),
        "Dice": lambda row: Cell("" if row.dice is None else f"{row.dice:.4f}"),
        "of the limit": _limit,
    }
    return _table(view, columns)


def agreement_table(view: View) -> Table:
    """What was found out about each row that was compared with the reference."""
    columns: dict[str, Callable[[Row], Cell]] = {
        "verdict": lambda row: _agreement(view, row),
        "equal labels": lambda row: _found(row, "equal_labels", lambda share: f"{100 * share:.4f} %"),
        "flipped": lambda row: _found(row, "flipped", "{:,}".format),
        "of them sure": _sure_flips,
        "largest difference": lambda row: _found(row, "max_difference", scientific),
        "mean difference": lambda row: _found(row, "mean_difference", scientific),
        "SNR": _noise_ratio,
        "Dice between": lambda row: _found(row, "dice", "{:.5f}".format),
        "edges, F1": lambda row: _found(row, "boundary_f1", "{:.4f}".format),
    }
    return _table(view, columns, lambda row: bool(row.data.get("agreement")))


def plan_table(view: View) -> Table:
    """On which device Core ML means to run each row's operations, with the share of the time that it expects."""
    devices: dict[str, None] = {}
    for row in view.rows:
        devices.update(dict.fromkeys((row.data.get("plan") or {}).get("devices") or {}))
    names = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}
    columns = {names.get(device, device): functools.partial(_device, device) for device in devices}
    return _table(view, columns, lambda row: bool(row.data.get("plan")))


def note_of(row: Row) -> str:
    """Why a row is wrong or was not timed, or which images it was not judged on; empty for the others."""
    if row.wrong:
        return "; ".join(map(str, row.data["agreement"].get("problems") or []))
    if not row.total:
        return str(row.data.get("reason") or "")
    judged = row.data.get("agreement") or row.data.get("scores") or {}
    left_out = judged.get("failures") or []
    return f"{plural(len(left_out), 'image')} left out of agreement and scores: {left_out[0]}" if left_out else ""


def _table(
    view: View, columns: Mapping[str, Callable[[Row], Cell]], wanted: Callable[[Row], bool] = lambda _: True
) -> Table:
    rows = [row for row in view.rows if wanted(row)]
    kept = {title: write for title, write in columns.items() if any(write(row).text for row in rows)}
    groups = [
        (group.title, [(row, [write(row) for write in kept.values()]) for row in group.rows if row in rows])
        for group in view.groups
    ]
    return Table(list(kept), [(title, rows) for title, rows in groups if rows])


def _median(row: Row) -> Cell:
    if not row.total:
        return Cell("not timed" if row.data["status"] == "untimed" else "failed", kind=str(row.data["status"]))
    return Cell(*spread(row.total))


def _statistic(row: Row, name: str) -> Cell:
    return Cell(number(row.total[name])) if row.total else Cell()


def _throughput(row: Row) -> Cell:
    rate = (row.data.get("throughput") or {}).get("images_per_s")
    return Cell(*spread(rate)) if rate and row.total else Cell()


def _startup(row: Row, step: str) -> Cell:
    value = row.startup(step)
    return Cell("" if value is None else duration(value))


def _bytes(count: float | None) -> Cell:
    return Cell("" if count is None else bytes_text(count))


def _agreement(view: View, row: Row) -> Cell:
    if row.data.get("agreement"):
        return Cell("wrong", kind="wrong") if row.wrong else Cell("agrees", kind="ok")
    return Cell("reference", kind="plain") if view.is_reference(row) else Cell()


def _limit(row: Row) -> Cell:
    limit = row.data.get("limit") or {}
    share = limit.get("share")
    return Cell("" if share is None else percent(share), f"{limit.get('bound') or ''}")


def _found(row: Row, name: str, write: Callable[[Any], str]) -> Cell:
    value = row.data["agreement"].get(name)
    return Cell("" if value is None else write(value))


def _sure_flips(row: Row) -> Cell:
    flips = row.data["agreement"].get("flips") or {}
    return Cell("" if flips.get("sure") is None else f"{flips['sure']:,}")


def _noise_ratio(row: Row) -> Cell:
    if row.data["agreement"].get("identical"):
        return Cell("identical")
    return _found(row, "snr_db", lambda ratio: f"{ratio:.1f} dB")


def _device(device: str, row: Row) -> Cell:
    found = ((row.data.get("plan") or {}).get("devices") or {}).get(device) or {}
    share = found.get("cost_share")
    return Cell(str(found.get("operations", "")), "" if share is None else f"{percent(share)} of the cost")
