"""Profiled and plain runs taking turns: what profiling changes, and what it misses."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence

__all__ = ["WARMUP", "in_turns", "whole_run"]

WARMUP = 3
"""Runs of each sort before any counts."""


def in_turns(runs: int, run: Callable[[bool], object]) -> tuple[list[float], list[float]]:
    """Time runs with and without profiling, in turns: first the one, then the other comes first.

    Args:
        runs: of each sort, after `WARMUP` that do not count.
        run: does one; is told whether it is a profiled one.

    Returns:
        Milliseconds of the profiled and of the plain runs; those of the same place stood beside each other.
    """
    wall: dict[bool, list[float]] = {True: [], False: []}
    for turn in range(WARMUP + runs):
        for is_profiled in (False, True) if turn % 2 else (True, False):
            started = time.perf_counter_ns()
            run(is_profiled)
            wall[is_profiled].append((time.perf_counter_ns() - started) / 1e6)
    return wall[True][WARMUP:], wall[False][WARMUP:]


def whole_run(profiled: Sequence[float], plain: Sequence[float], sums: Sequence[float]) -> dict[str, float]:
    """What `Profile` says of whole runs: medians over runs of ratios within a run or a pair, so that noise cancels.

    Args:
        profiled: milliseconds of each profiled run.
        plain: of the plain run beside it.
        sums: of its layers' times.
    """
    return {
        "profiled_ms": statistics.median(profiled),
        "plain_ms": statistics.median(plain),
        "accounted": statistics.median(a / b for a, b in zip(sums, profiled, strict=True)),
        "overhead": statistics.median(a / b for a, b in zip(profiled, plain, strict=True)) - 1,
    }
