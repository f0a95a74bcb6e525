"""The highest rates that this machine reached: fp32 arithmetic and memory traffic, measured, not looked up.

python -m unet_edge_bench.timing.ceilings
"""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from .child import Child
from .worker import answer_stream

__all__ = ["highest", "measure_ceiling"]

SIDES = (384, 768, 1536)  # of square matrices: 1.7, 7 and 28 MB for the three of a product
BYTES = 256 << 20  # far beyond a cache; source and target together
SECONDS = 0.5  # for each size, and for the copy
LEAST = 3
RATES = ("gflops", "gbytes_per_s")
_WHAT = (
    "the highest rate that this machine reached in this run: numpy's float32 matrix product, best of sides "
    f"{', '.join(map(str, SIDES))}; and a copy of {BYTES >> 21} MB, bytes read plus bytes written"
)


def measure_ceiling(threads: int, seconds: float = SECONDS, timeout: float = 120.0) -> dict[str, Any]:
    """Measure in a process of its own.

    Args:
        threads: of BLAS, and that copy side by side.
        seconds: for each size of matrix, and for the copy.
        timeout: seconds after which it is given up.

    Returns:
        `threads`, `gflops` (a multiply-add counts two), `gbytes_per_s`, `what`, and `samples`: the best rate of each
        size of matrix, and every copy's.

    Raises:
        BackendError: the process died.
    """
    with Child(__name__, threads) as child:
        products = child.ask(timeout, do="products", seconds=seconds)["gflops"]
        copies = child.ask(timeout, do="copies", seconds=seconds, threads=threads)["gbytes_per_s"]
    return {
        "threads": threads,
        "gflops": max(products),
        "gbytes_per_s": max(copies),
        "what": _WHAT,
        "samples": {"gflops": products, "gbytes_per_s": copies},
    }


def highest(looks: Sequence[Sequence[Mapping[str, Any]]]) -> list[dict[str, Any]]:
    """Of several looks at the same machine the best, for each number of threads.

    More threads can leave some of them idle, so their ceiling is never below that of fewer.

    Args:
        looks: each a list of what `measure_ceiling` returns, in ascending order of threads.
    """
    found: list[dict[str, Any]] = []
    for same in zip(*looks, strict=True):
        best = {**same[0], "samples": {rate: [s for one in same for s in one["samples"][rate]] for rate in RATES}}
        for rate in RATES:
            best[rate] = max([one[rate] for one in same] + [fewer[rate] for fewer in found])
        found.append(best)
    return found


def main() -> int:
    """Serve until standard input ends."""
    return answer_stream(_answer)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    if request["do"] == "products":
        return {"gflops": [_product_rate(side, request["seconds"]) for side in SIDES]}
    return {"gbytes_per_s": _copy_rates(request["threads"], request["seconds"])}


def _product_rate(side: int, seconds: float) -> float:
    generator = np.random.default_rng(0)
    first, second = generator.random((2, side, side), np.float32)
    out = np.empty_like(first)
    best = min(_durations(lambda: np.matmul(first, second, out=out), seconds))
    return 2 * side**3 / best


def _copy_rates(threads: int, seconds: float) -> list[float]:
    source = np.ones(BYTES // 8, np.float32)
    target = np.zeros_like(source)
    parts = list(zip(np.array_split(source, threads), np.array_split(target, threads), strict=True))

    def copy() -> None:
        copiers = [threading.Thread(target=np.copyto, args=(to, of)) for of, to in parts[1:]]
        for copier in copiers:
            copier.start()
        np.copyto(parts[0][1], parts[0][0])
        for copier in copiers:
            copier.join()

    return [2 * source.nbytes / duration for duration in _durations(copy, seconds)]


def _durations(work: Callable[[], object], seconds: float) -> list[int]:
    """Nanoseconds of each repetition, after one that is not counted."""
    work()
    durations: list[int] = []
    ended = time.perf_counter_ns() + round(seconds * 1e9)
    while len(durations) < LEAST or time.perf_counter_ns() < ended:
        started = time.perf_counter_ns()
        work()
        durations.append(time.perf_counter_ns() - started)
    return durations


if __name__ == "__main__":
    sys.exit(main())
