"""The highest rates that this machine reached: fp32 arithmetic and memory traffic, measured, not looked up.

python -m unet_edge_bench.timing.ceilings
"""

from __future__ import annotations

import functools
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_bench.process import Child, answer_stream

from .product_graph import product_graph

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["highest", "measure_ceiling"]

SIDES = (384, 768, 1536)  # of square matrices: 1.7, 7 and 28 MB for the three of a product
BYTES = 256 << 20  # far beyond a cache; source and target together
SECONDS = 0.5  # for each size, and for the copy
LEAST = 3
_Make = Callable[[int], Callable[[], object]]
RATES = ("gflops", "gbytes_per_s")
_WHAT = (
    "the highest rate that this machine reached in this run: float32 matrix product of numpy and of ONNX Runtime, best "
    f"of sides {', '.join(map(str, SIDES))}; and a copy of {BYTES >> 21} MB, bytes read plus bytes written"
)


def measure_ceiling(threads: int, seconds: float = SECONDS, timeout: float = 120.0) -> dict[str, Any]:
    """Measure in a process of its own.

    Args:
        threads: of BLAS, and that copy side by side.
        seconds: for each size of matrix, and for the copy.
        timeout: seconds after which it is given up.

    Returns:
        `threads`, `gflops` (a multiply-add counts two), `gbytes_per_s`, `what`, and `samples`: the best rate of each
        size of matrix, numpy's first, and every copy's.

    Raises:
        BackendError: the process died.
    """
    with Child(__name__, threads) as child:
        products = child.ask(timeout, do="products", seconds=seconds, threads=threads)["gflops"]
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
        # Neither is always the faster one: numpy's BLAS may not know a new processor's widest instructions.
        products: list[_Make] = [_numpy_product, functools.partial(_runtime_product, threads=request["threads"])]
        return {"gflops": [_rate(make(side), side, request["seconds"]) for make in products for side in SIDES]}
    return {"gbytes_per_s": _copy_rates(request["threads"], request["seconds"])}


def _rate(product: Callable[[], object], side: int, seconds: float) -> float:
    return 2 * side**3 / min(_durations(product, seconds))


def _numpy_product(side: int) -> Callable[[], object]:
    first, second = _matrices(side)
    return functools.partial(np.matmul, first, second, out=np.empty_like(first))


def _runtime_product(side: int, threads: int) -> Callable[[], object]:
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(product_graph(side), options, providers=["CPUExecutionProvider"])
    first, second = _matrices(side)
    return functools.partial(session.run, None, {"a": first, "b": second})


def _matrices(side: int) -> NDArray[np.float32]:
    return np.random.default_rng(0).random((2, side, side), np.float32)


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
