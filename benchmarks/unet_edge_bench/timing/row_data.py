"""One row of the results: what it is, what was measured, and the statistics that follow."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from unet_edge_bench.stats import median_interval, outliers, percentiles
from unet_edge_runtime.files import sha256_of, size_of

from .campaign import Measured
from .plan import Row
from .stages import STAGES

__all__ = ["all_samples", "row_data", "stage_turns", "total_turns"]

_FORMATS = {".onnx": "onnx", ".mlpackage": "coreml", ".pth": "checkpoint", ".pt": "checkpoint", ".th": "checkpoint"}
_EXTRAS = ("agreement", "scores", "cost", "limit", "layers", "plan")

Samples = Mapping[str, Sequence[Sequence[Sequence[float]]]]  # stage -> launches -> rounds -> milliseconds


def row_data(row: Row, measured: Measured, seed: int, extras: Mapping[str, Any]) -> dict[str, Any]:
    """A row as plain data.

    Args:
        row: what was to be measured.
        measured: what was.
        seed: of the resampling.
        extras: what others found out about it: see `build_results`.
    """
    status, reason = _status(row, measured)
    facts = {**extras.get("facts", {}), **measured.facts}
    size, image_size = facts.get("size") or row.size, facts.get("image_size")
    return {
        "id": row.id,
        "label": row.label or row.id,
        "model": row.path.name,
        "format": _FORMATS.get(row.path.suffix.lower(), row.path.suffix.lstrip(".") or "folder"),
        "backend": row.backend,
        "sha256": _or_none(lambda: sha256_of(row.path)),
        "bytes": _or_none(lambda: size_of(row.path)),
        "precision": row.precision or facts.get("precision"),
        "head": facts.get("head"),
        "size": size,
        "image_size": image_size,
        "batch": row.batch,
        "threads": row.threads,
        "streams": row.streams,
        "compute_units": row.compute_units,
        "proves": facts.get("proves", ""),
        "status": status,
        "reason": reason,
        "startup_ms": measured.startup_ms,
        "warmup": measured.warmup,
        "samples_ms": measured.samples_ms,
        "statistics": _statistics(measured.samples_ms, seed),
        "throughput": _throughput(measured, seed),
        "peak_memory_bytes": measured.peak_memory,
        **{name: extras.get(name) for name in _EXTRAS},
    }


def all_samples(row: Mapping[str, Any]) -> list[float]:
    """Every sample of all stages together, milliseconds a batch, in the order in which they were measured."""
    return [ms for launch in _totals(row["samples_ms"]) for turn in launch for ms in turn]


def total_turns(row: Mapping[str, Any]) -> list[list[float]]:
    """The median of each turn of all stages together, milliseconds a batch, by launch and round."""
    return _turns(_totals(row["samples_ms"]))


def stage_turns(samples: Samples, stage: str) -> list[list[float]]:
    """The median of each turn of one stage, likewise."""
    return _turns(samples[stage])


def _status(row: Row, measured: Measured) -> tuple[str, str | None]:
    if row.untimed:
        return "untimed", row.untimed
    if row.refused or measured.reason:
        return "failed", row.refused or measured.reason
    if not any(measured.seconds):
        return "failed", "interrupted before its first turn"
    return "ok", None


def _statistics(samples: Samples, seed: int) -> dict[str, Any] | None:
    """Of each stage, and of the stages of each image added up."""
    stages = {**{stage: samples[stage] for stage in STAGES}, "total": _totals(samples)}
    found = {}
    for stage, launches in stages.items():
        values = [value for launch in launches for turn in launch for value in turn]
        estimate = median_interval(_turns(launches), seed)
        if estimate is None:
            return None
        found[stage] = {
            **estimate.to_dict(),
            **percentiles(values),
            "count": len(values),
            "outliers": outliers(values),
        }
    return found


def _throughput(measured: Measured, seed: int) -> dict[str, Any] | None:
    """Images a second over whole turns, all streams together."""
    turns = [
        [images / seconds for images, seconds in zip(*launch, strict=True)]
        for launch in zip(measured.images, measured.seconds, strict=True)
    ]
    estimate = median_interval(turns, seed)
    if estimate is None:
        return None
    return {"images_per_s": estimate.to_dict(), "images": measured.images, "seconds": measured.seconds}


def _totals(samples: Samples) -> list[list[list[float]]]:
    return [
        [[sum(sample) for sample in zip(*turn, strict=True)] for turn in zip(*launch, strict=True)]
        for launch in zip(*(samples[stage] for stage in STAGES), strict=True)
    ]


def _turns(launches: Sequence[Sequence[Sequence[float]]]) -> list[list[float]]:
    return [[float(np.median(turn)) for turn in launch] for launch in launches]


def _or_none(find: Callable[[], Any]) -> Any:
    try:
        return find()
    except OSError:
        return None
