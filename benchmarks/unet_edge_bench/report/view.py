"""The results as the report reads them: rows that can be compared stand in one group."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from unet_edge_bench.machine import machine_text

from .words import plural

__all__ = ["SAME", "STAGES", "Group", "Row", "View", "size_text"]

STAGES = ("preprocess", "inference", "postprocess")
SAME = ("size", "image_size", "batch", "streams")  # what rows must have in common to be compared


@dataclass(frozen=True)
class Row:
    """One row of the results; what is not in it is None or empty."""

    data: Mapping[str, Any]

    @property
    def id(self) -> str:
        """As the results know it."""
        return str(self.data["id"])

    @property
    def label(self) -> str:
        """For people, on one line."""
        return " ".join(str(self.data.get("label") or self.data["id"]).split())

    @property
    def statistics(self) -> Mapping[str, Any]:
        """Of each stage and of `total`; empty where nothing was timed."""
        found = self.data.get("statistics") or {}
        return found if self.data["status"] == "ok" and found.get("total") else {}

    @property
    def total(self) -> Mapping[str, Any] | None:
        """Statistics of a whole image, or of a whole batch."""
        return self.statistics.get("total")

    @property
    def wrong(self) -> bool:
        """Whether it does not agree with the reference."""
        return bool(self.data.get("agreement")) and not self.data["agreement"]["passed"]

    @property
    def ranked(self) -> bool:
        """Whether its times count: there are some, and it is not wrong."""
        return self.total is not None and not self.wrong

    @property
    def state(self) -> str:
        """The class of its marks: ok, wrong, untimed or failed."""
        if self.wrong:
            return "wrong"
        return str(self.data["status"]) if self.total is None else "ok"

    @property
    def dice(self) -> float | None:
        """Against the masks."""
        value = (self.data.get("scores") or {}).get("dice")
        return None if value is None else float(value)

    def samples(self) -> list[list[float]]:
        """Milliseconds of whole images (batches), by launch; none is left out."""
        stages = self.data.get("samples_ms") or {}
        launches = zip(*(stages.get(stage) or [] for stage in STAGES), strict=True)
        return [
            [sum(parts) for rounds in zip(*launch, strict=True) for parts in zip(*rounds, strict=True)]
            for launch in launches
        ]

    def startup(self, step: str) -> float | None:
        """Median over the launches of `import`, `load` or `first_run`, in milliseconds."""
        values = [value for value in (self.data.get("startup_ms") or {}).get(step) or [] if value is not None]
        return statistics.median(values) if values else None

    def memory(self) -> float | None:
        """Most bytes that its process ever held: the median over the launches."""
        values = [value for value in self.data.get("peak_memory_bytes") or [] if value is not None]
        return statistics.median(values) if values else None


@dataclass(frozen=True)
class Group:
    """Rows that did the same work: one network input size, image, batch and number of streams.

    Attributes:
        title: "320 × 480, batch 4".
        rows: in the results' order.
    """

    title: str
    rows: tuple[Row, ...]

    @property
    def unit(self) -> str:
        """What a time is of."""
        return _unit(self.rows)

    @property
    def timed(self) -> list[Row]:
        """Rows with times, wrong ones too."""
        return [row for row in self.rows if row.total]

    @property
    def ranked(self) -> list[Row]:
        """Rows whose times count."""
        return [row for row in self.rows if row.ranked]


class View:
    """Results with their rows in groups.

    Args:
        results: of the schema "unet-edge-benchmark/1".
    """

    def __init__(self, results: Mapping[str, Any]) -> None:
        self.results = results
        self.rows = [Row(data) for data in results["rows"]]
        kinds: dict[tuple[Any, ...], list[Row]] = {}
        for row in self.rows:
            kinds.setdefault(tuple(_plain(row.data.get(name)) for name in SAME), []).append(row)
        titles = {kind: _title(kind, list(kinds)) for kind in kinds}
        self.groups = [Group(titles[kind], tuple(rows)) for kind, rows in kinds.items()]
        self.by_id = {row.id: row for row in self.rows}

    @property
    def references(self) -> list[str]:
        """Ids of the rows that others were compared with."""
        named = (row.data["agreement"].get("reference") for row in self.rows if row.data.get("agreement"))
        return list(dict.fromkeys(str(name) for name in named if name))

    def is_reference(self, row: Row) -> bool:
        """Whether others were compared with the outputs of this row's file, run as here; threads do not change them."""
        same = ("sha256", "backend", "precision", "compute_units")
        rows = (self.by_id[name] for name in self.references if name in self.by_id)
        return any(all(row.data.get(key) == other.data.get(key) for key in same) for other in rows)

    @property
    def unit(self) -> str:
        """What a time is of; batches of different sizes are batches."""
        return _unit(self.rows)

    def name(self, row: Row) -> str:
        """Label that tells a row from all others of the run."""
        if len(self.groups) == 1:
            return row.label
        return f"{row.label} · {next(group.title for group in self.groups if row in group.rows)}"

    def doubts(self) -> list[str]:
        """Why the run is not to be trusted; empty if it is."""
        noise = self.results.get("noise") or {}
        if noise.get("reliable", True):
            return []
        return [str(reason) for reason in noise.get("reasons") or ["the machine was not steady"]]

    def machine(self) -> str:
        """One line."""
        facts = self.results["machine"]
        return ", ".join(filter(None, [machine_text(facts), facts.get("system")]))


def size_text(size: Sequence[int] | None) -> str:
    """320 × 480: height first, as in arrays."""
    return " × ".join(str(side) for side in size) if size else "unknown size"


def _unit(rows: Sequence[Row]) -> str:
    return "batch" if any((row.data.get("batch") or 1) > 1 for row in rows) else "image"


def _plain(value: Any) -> Any:
    return tuple(value) if isinstance(value, list) else value


def _title(kind: tuple[Any, ...], kinds: Sequence[tuple[Any, ...]]) -> str:
    """The size, and of the rest what tells this group from others or is not the usual 1."""
    size, image_size, batch, streams = kind
    if not size:
        return "not run"
    parts = [size_text(size)]
    if len({other[:2] for other in kinds}) > len({other[0] for other in kinds}):
        parts.append(f"from {size_text(image_size)}")
    if any((other[2] or 1) > 1 for other in kinds):
        parts.append(f"batch {batch}")
    if any((other[3] or 1) > 1 for other in kinds):
        parts.append(plural(streams or 1, "stream"))
    return ", ".join(parts)
