"""Results as data: what a campaign measured, with statistics and ranking, in the form of `results.schema.json`."""

from __future__ import annotations

import datetime
import itertools
import math
from collections.abc import Mapping, Sequence
from typing import Any

from unet_edge_bench.machine import machine_facts, machine_state
from unet_edge_bench.stats import verdict

from .campaign import Campaign, Measured
from .plan import Protocol, Row
from .row_data import row_data, total_turns

__all__ = ["SCHEMA", "build_results", "comparable", "rank"]

SCHEMA = "unet-edge-benchmark/1"


def build_results(
    rows: Sequence[Row],
    campaign: Campaign,
    protocol: Protocol,
    *,
    images: Sequence[Mapping[str, Any]],
    origin: str,
    command: str,
    ceilings: Sequence[Mapping[str, Any]] = (),
    extras: Mapping[str, Mapping[str, Any]] | None = None,
) -> dict[str, Any]:
    """Put together what goes into results.json.

    Args:
        rows: as they were measured.
        campaign: what `run_campaign` returned for them.
        protocol: of the campaign.
        images: `name`, `sha256`, `width`, `height`, `timed` of each image that took part.
        origin: what was timed on, in words.
        command: that did all this.
        ceilings: as `measure_ceiling` returns them.
        extras: by row id, any of agreement, scores, cost, limit, layers, plan; and `facts`, what a worker would
            say of a model that is not timed.

    Returns:
        Plain data that follows `results.schema.json`.
    """
    extras = extras or {}
    found = [
        row_data(row, campaign.rows.get(row.id) or Measured(), protocol.seed, extras.get(row.id, {})) for row in rows
    ]
    return _finite(
        {
            "schema": SCHEMA,
            "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
            "command": command,
            "seed": protocol.seed,
            "complete": campaign.complete,
            "machine": {**machine_facts(), **machine_state()},
            "protocol": protocol.to_dict(),
            "images": list(images),
            "origin": origin,
            "noise": campaign.noise.to_dict(),
            "ceilings": list(ceilings),
            "rows": found,
            "ranking": rank(found, protocol.seed),
        }
    )


def rank(rows: Sequence[Mapping[str, Any]], seed: int) -> list[dict[str, Any]]:
    """Every pair of rows that may be compared, the one with the smaller median first.

    Rows that failed, are not timed or do not agree with the reference take no part.
    """
    fit = [row for row in rows if row["status"] == "ok" and (row["agreement"] or {"passed": True})["passed"]]
    fit.sort(key=lambda row: row["statistics"]["total"]["median"])
    pairs = []
    for first, second in itertools.combinations(fit, 2):
        if comparable(first, second):
            ratio, word = verdict(total_turns(first), total_turns(second), seed)
            if ratio is not None:
                # Medians and the median of ratios can point in different ways only where nothing can be told.
                word = word if word == "faster" else "cannot tell"
                pairs.append({"first": first["id"], "second": second["id"], "ratio": ratio.to_dict(), "verdict": word})
    return pairs


def comparable(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether two rows did the same work: the same image and network input, batch and streams."""
    return all(first[key] == second[key] for key in ("size", "image_size", "batch", "streams"))


def _finite(value: Any) -> Any:
    """The same data with None for NaN and infinity, which JSON does not have."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
