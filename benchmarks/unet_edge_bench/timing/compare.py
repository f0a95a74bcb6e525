"""Two saved results against each other: what became slower, and is that more than chance?"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from unet_edge_bench.stats import Estimate, median_interval, unpaired_ratio

from .row_data import total_turns

__all__ = ["Comparison", "compare_results", "machine_differences", "succeeded"]

_SAME = ("backend", "format", "size", "image_size", "batch", "threads", "streams", "precision", "head", "compute_units")
_TOLD = ("size", "image_size", "precision", "head")  # what only a model that could be opened tells
_MACHINE = ("system", "machine", "processor", "physical_cores", "memory_bytes")

Comparison = dict[str, Any]


def compare_results(base: Mapping[str, Any], new: Mapping[str, Any], slower: float | None = None) -> Comparison:
    """Compare rows of two results, matched by what they are: model's name, backend and every choice.

    A model that was renamed is found where only one row on each side could be meant.

    Args:
        base: results to compare with.
        new: results to judge.
        slower: how much slower, relatively, a row may be; None for no limit.

    Returns:
        `machine`: what differs between the machines, in words; `rows`: id, label, `ratio` (new / base: median, low,
        high), `verdict` (faster, slower, cannot tell; or why there is none), and `failed`: the interval shows that
        it is slower by more than allowed, or it failed or became wrong; `missing`: labels of base rows without a
        partner; `failed`: any row.
    """
    partners = _partners(base, new)
    rows = [_changed(row, partners.get(row["id"]), new["seed"], slower) for row in new["rows"]]
    matched = {partner["id"] for partner in partners.values()}
    return {
        "machine": machine_differences(base["machine"], new["machine"]),
        "unreliable": [name for name, one in (("base", base), ("new", new)) if not one["noise"]["reliable"]],
        "allowed_slower": slower,
        "rows": rows,
        "missing": [row["label"] for row in base["rows"] if row["id"] not in matched],
        "failed": any(row["failed"] for row in rows),
    }


def succeeded(results: Mapping[str, Any], comparison: Comparison | None) -> bool:
    """Whether the run came to its end and something was timed; and whether no row fails the comparison.

    Without one, every model must have been usable, at one of the sizes at least, and none wrong.
    """
    rows = results["rows"]
    if not results["complete"] or not any(row["status"] == "ok" for row in rows):
        return False
    if comparison:
        return not comparison["failed"]
    used = {row["model"] for row in rows if row["status"] != "failed"} == {row["model"] for row in rows}
    return used and all((row["agreement"] or {"passed": True})["passed"] for row in rows)


def machine_differences(base: Mapping[str, Any], new: Mapping[str, Any]) -> list[str]:
    """What differs and matters for time: the machine, Python, and versions of packages."""
    found = [(key, base.get(key), new.get(key)) for key in (*_MACHINE, "python")]
    packages = sorted({*base["packages"], *new["packages"]})
    found += [(name, base["packages"].get(name), new["packages"].get(name)) for name in packages]
    return [f"{key}: {before} before, {now} now" for key, before, now in found if before != now]


def _partners(base: Mapping[str, Any], new: Mapping[str, Any]) -> dict[str, Mapping[str, Any]]:
    """The base row for each new row's id, each used once."""
    left = list(base["rows"])
    found: dict[str, Mapping[str, Any]] = {}
    # The id first: it tells two models of one name by their folders.
    for name in ("id", "model"):
        for row in new["rows"]:
            same = [other for other in left if other[name] == row[name] and _alike(other, row)]
            if same and row["id"] not in found:
                found[row["id"]] = same[0]
                left.remove(same[0])
    for row in new["rows"]:
        others = [other for other in left if _alike(other, row)]
        rivals = [one for one in new["rows"] if one["id"] not in found and _alike(one, row)]
        if row["id"] not in found and len(others) == len(rivals) == 1:
            found[row["id"]] = others[0]
            left.remove(others[0])
    return found


def _alike(first: Mapping[str, Any], second: Mapping[str, Any]) -> bool:
    """Whether all choices are the same, as far as both rows know them."""
    known = [name for name in _SAME if not (name in _TOLD and None in (first[name], second[name]))]
    return all(first[name] == second[name] for name in known)


def _state(row: Mapping[str, Any]) -> str:
    is_wrong = row["agreement"] and not row["agreement"]["passed"]
    return "wrong" if is_wrong else str(row["status"])


def _changed(row: Mapping[str, Any], base: Mapping[str, Any] | None, seed: int, slower: float | None) -> dict[str, Any]:
    found = {"id": row["id"], "label": row["label"], "base": None, "ratio": None, "failed": False}
    if base is None:
        return {**found, "verdict": "new: not in the base"}
    found["base"] = base["id"]
    if _state(base) != "ok":
        return {**found, "verdict": f"{_state(base)} in the base"}
    if _state(row) != "ok":
        lost = slower is not None and _state(row) in ("failed", "wrong")
        return {**found, "verdict": f"{_state(row)} in this run", "failed": lost}
    before, now = total_turns(base), total_turns(row)
    ratio = unpaired_ratio(now, before, seed)
    if ratio is None:
        return {**found, "verdict": "cannot tell"}
    word = _verdict(ratio, median_interval(now, seed), median_interval(before, seed))
    too_slow = slower is not None and ratio.low is not None and ratio.low > 1 + slower
    return {**found, "ratio": ratio.to_dict(), "verdict": word, "failed": too_slow}


def _verdict(ratio: Estimate, now: Estimate | None, before: Estimate | None) -> str:
    if now is None or before is None or not ratio.excludes(1) or now.overlaps(before):
        return "cannot tell"
    return "slower" if ratio.median > 1 else "faster"
