"""The machine's own noise: a fixed piece of work, timed before, during and after everything else.

python -m unet_edge_bench.timing.noise
"""

from __future__ import annotations

import sys
import time
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_edge_bench.process import Child, answer_stream

__all__ = ["DRIFT", "SPREAD", "Noise", "ReferenceLoop"]

DRIFT = 0.05
"""Largest relative change of the reference loop from before to after that a reliable run may have."""

SPREAD = 0.15
"""Largest distance from the 10th to the 90th percentile of its samples, relative to the median, likewise."""

SIDE = 512  # of the multiplied matrices: 0.27 billion operations, a few milliseconds on one core
LOOPS = 15  # a sample is the median of so many
_WHAT = f"median of {LOOPS} products of two {SIDE}x{SIDE} float32 matrices (numpy), {{threads}} thread{{s}}"


@dataclass
class Noise:
    """What the reference loop found.

    Attributes:
        threads: that it used.
        before_ms: before the first launch.
        after_ms: after the last.
        samples_ms: at the beginning of each round, by launch.
        doubts: what others found.
    """

    threads: int
    before_ms: float = 0.0
    after_ms: float = 0.0
    samples_ms: list[list[float]] = field(default_factory=list)
    doubts: list[str] = field(default_factory=list)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON, with what follows from the samples."""
        values = np.array([self.before_ms, *(ms for launch in self.samples_ms for ms in launch), self.after_ms])
        low, middle, high = np.percentile(values, [10, 50, 90])
        drift, spread = float(self.after_ms / self.before_ms - 1), float((high - low) / middle)
        reasons = list(self.doubts)
        if abs(drift) > DRIFT:
            how = "longer" if drift > 0 else "shorter"
            reasons.append(
                f"the reference loop took {abs(drift):.0%} {how} after the run than before (limit {DRIFT:.0%})"
            )
        if spread > SPREAD:
            reasons.append(
                f"the reference loop's samples, a tenth left out at each end, spread over {spread:.0%} of their median "
                f"(limit {SPREAD:.0%})"
            )
        return {
            "what": _WHAT.format(threads=self.threads, s="" if self.threads == 1 else "s"),
            "before_ms": self.before_ms,
            "after_ms": self.after_ms,
            "samples_ms": self.samples_ms,
            "spread": spread,
            "drift": drift,
            "reliable": not reasons,
            "reasons": reasons,
        }


class ReferenceLoop:
    """The loop in a process of its own, so that its number of threads is its own too. A context manager.

    Args:
        threads: of BLAS.
    """

    def __init__(self, threads: int) -> None:
        self.child = Child(__name__, threads)

    def sample(self) -> float:
        """Milliseconds of one sample."""
        return float(self.child.ask(60, do="sample")["ms"])

    def steady(self, samples: int = 5) -> float:
        """The median of some samples in a row."""
        return float(np.median([self.sample() for _ in range(samples)]))

    def __enter__(self) -> ReferenceLoop:
        return self

    def __exit__(self, *_: object) -> None:
        self.child.close()


def main() -> int:
    """Serve samples until standard input ends."""
    generator = np.random.default_rng(0)
    first, second = generator.random((2, SIDE, SIDE), np.float32)
    out = np.empty_like(first)

    def sample(request: dict[str, Any]) -> dict[str, Any]:
        np.matmul(first, second, out=out)
        marks = [time.perf_counter_ns()]
        for _ in range(LOOPS):
            np.matmul(first, second, out=out)
            marks.append(time.perf_counter_ns())
        return {"ms": float(np.median(np.diff(marks))) / 1e6}

    return answer_stream(sample)


if __name__ == "__main__":
    sys.exit(main())
