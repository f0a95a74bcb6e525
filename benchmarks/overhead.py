"""What our timing costs: `python benchmarks/overhead.py MODEL.onnx [--size HxW]`.

Two ratios, each of medians of paired rounds, with its interval:

1. the benchmark's timed loop (four readings of the clock an image, samples kept) against a bare loop over the same work
   without a clock, on a piece of work that takes as long as a 5 ms model;
2. ONNX Runtime through our backend (checks, copies and all) against a hand-written session with the same settings.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnxruntime

from unet_edge_bench.stats import paired_ratio
from unet_edge_bench.timing.stages import Job, Turn
from unet_edge_runtime.backend import Backend, load_backend
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.transform import postprocess, preprocess

TARGET_MS = 5.0
LIMITS = {"timed loop / bare loop": 1.01, "our backend / bare session": 1.02}


class Busy(Backend):
    """Calculates for about `TARGET_MS`."""

    name = "busy"

    def __init__(self, like: Backend) -> None:
        self.spec, self.path = like.spec, like.path
        self.values = np.random.default_rng(0).random(1 << 14, np.float32)
        self.repeats = 1
        started = time.perf_counter()
        for _ in range(50):
            self._work()
        self.repeats = max(1, round(TARGET_MS / 1e3 / ((time.perf_counter() - started) / 50)))

    def _work(self) -> None:
        for _ in range(self.repeats):
            np.tanh(self.values)  # on one thread, whatever BLAS would take

    def _run(self, batch: np.ndarray) -> np.ndarray:
        self._work()
        return np.zeros((len(batch), self.spec.outputs, *batch.shape[2:]), np.float32)


def main() -> int:
    """Measure both; 1 where one is above its limit."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("--size", default="128x128", help="of the network's input, for a model that takes any")
    parser.add_argument("--rounds", type=int, default=500)
    parser.add_argument("--threads", type=int, default=1)
    options = parser.parse_args()
    height, width = map(int, options.size.split("x"))
    backend = load_backend(options.model, "onnx", threads=options.threads)
    pairs = {
        "timed loop / bare loop": timing_pair(backend),
        "our backend / bare session": backend_pair(
            backend, options.model, backend.spec.input_size or (height, width), options.threads
        ),
    }
    results = [report(name, pair, options.rounds) for name, pair in pairs.items()]
    return 0 if all(results) else 1


def timing_pair(backend: Backend, images: int = 5) -> tuple[Callable[[], object], Callable[[], object]]:
    """The benchmark's turn, and the same calls in a plain loop."""
    image = np.zeros((64, 64, 3), np.uint8)
    segmenter = Segmenter(Busy(backend))
    job = Job(segmenter, image)

    def bare() -> None:
        for _ in range(images):
            postprocess(segmenter.run(preprocess(image, segmenter.spec)), segmenter.spec, (64, 64))

    # Not `turn`: it also collects garbage before its clock starts, which belongs to no sample.
    return lambda: job._stream_all([Turn()], [], 0, images), bare


def backend_pair(
    backend: Backend, model: Path, size: tuple[int, int], threads: int
) -> tuple[Callable[[], object], Callable[[], object]]:
    """Our backend, and a session as anybody would write it."""
    settings = onnxruntime.SessionOptions()
    settings.intra_op_num_threads = threads
    session = onnxruntime.InferenceSession(str(model), settings, providers=["CPUExecutionProvider"])
    spec = backend.spec
    batch = np.random.default_rng(0).random((1, spec.channels, *size), np.float32)
    name = spec.input_name
    return lambda: backend.run(batch), lambda: session.run(None, {name: batch})


def report(name: str, pair: tuple[Callable[[], object], Callable[[], object]], rounds: int) -> bool:
    """Interleave, print the ratio, and say whether it is within its limit."""
    ours, bare = interleaved(pair, rounds)
    ratio = paired_ratio(ours, bare)
    median = statistics.median(value for group in ours for value in group)
    print(
        f"{name}: {ratio.median:.4f} [{ratio.low:.4f}-{ratio.high:.4f}], limit {LIMITS[name]}, "
        f"median {median:.2f} ms a turn, {rounds} rounds"
    )
    return ratio.median <= LIMITS[name]


def interleaved(
    pair: tuple[Callable[[], object], Callable[[], object]], rounds: int, groups: int = 10
) -> tuple[list[list[float]], list[list[float]]]:
    """Milliseconds of both, in changing order, in groups that stand for launches."""
    found: tuple[list[list[float]], list[list[float]]] = ([], [])
    for work in pair:
        for _ in range(5):
            work()
    for group in range(groups):
        found[0].append([])
        found[1].append([])
        for number in range(rounds // groups):
            for index in (0, 1) if (group + number) % 2 else (1, 0):
                started = time.perf_counter_ns()
                pair[index]()
                found[index][-1].append((time.perf_counter_ns() - started) / 1e6)
    return found


if __name__ == "__main__":
    sys.exit(main())
