"""How long one image takes, stage by stage, with the backends taking turns."""

from __future__ import annotations

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.transform import postprocess, preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STAGES", "Protocol", "Timing", "measure", "measure_load", "total", "turns"]

STAGES = ("preprocess", "inference", "postprocess")
"""Image in memory -> network input -> padded, run and cropped -> labels at the image's own size."""

Clock = Callable[[], int]


@dataclass(frozen=True)
class Protocol:
    """How often to measure.

    Attributes:
        warmup: untimed images of each backend before anything counts.
        rounds: turns of each backend.
        repeats: timed images a turn; one untimed image precedes them.
        loads: how often each model is opened.
    """

    warmup: int = 3
    rounds: int = 10
    repeats: int = 3
    loads: int = 3


@dataclass(frozen=True)
class Timing:
    """Durations in milliseconds, in the order in which they were measured."""

    samples: tuple[float, ...]

    @property
    def median(self) -> float:
        """Half of the samples took no longer."""
        return float(np.median(self.samples))

    @property
    def p5(self) -> float:
        """The 5th percentile."""
        return float(np.percentile(self.samples, 5))

    @property
    def p95(self) -> float:
        """The 95th percentile."""
        return float(np.percentile(self.samples, 95))

    def overlaps(self, other: Timing) -> bool:
        """Whether the intervals from p5 to p95 touch: then this measurement ranks neither before the other."""
        return self.p5 <= other.p95 and other.p5 <= self.p95

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the statistics and every sample."""
        return {"median": self.median, "p5": self.p5, "p95": self.p95, "samples": list(self.samples)}


def measure(
    segmenters: Mapping[str, Segmenter],
    image: NDArray[np.generic],
    protocol: Protocol | None = None,
    clock: Clock = time.perf_counter_ns,
) -> dict[str, dict[str, Timing]]:
    """Time single images in the steady state.

    Backends take turns (A B, B A, ...), so that a busy moment or a warm processor meets them alike. Each turn begins
    with an untimed image: threads of the backend before may still spin, and caches hold the other's weights.

    Args:
        segmenters: open models by name.
        image: (H, W[, C]) as `read_image` returns; reading the file is not timed.
        protocol: how often.
        clock: nanoseconds.

    Returns:
        Timings by name and stage.
    """
    protocol = protocol or Protocol()
    samples: dict[str, dict[str, list[float]]] = {name: {stage: [] for stage in STAGES} for name in segmenters}
    for segmenter in segmenters.values():
        for _ in range(protocol.warmup):
            _time_one(segmenter, image, clock)
    for name in turns(list(segmenters), protocol.rounds):
        _time_one(segmenters[name], image, clock)
        for _ in range(protocol.repeats):
            for stage, duration in zip(STAGES, _time_one(segmenters[name], image, clock), strict=True):
                samples[name][stage].append(duration)
    return {
        name: {stage: Timing(tuple(values)) for stage, values in stages.items()} for name, stages in samples.items()
    }


def turns(names: Sequence[str], rounds: int) -> Iterator[str]:
    """Whose turn it is: every name once a round, in the opposite order every other round."""
    for number in range(rounds):
        yield from names if number % 2 == 0 else reversed(names)


def total(stages: Mapping[str, Timing]) -> Timing:
    """The stages of each image added up."""
    return Timing(tuple(map(sum, zip(*(stages[stage].samples for stage in STAGES), strict=True))))


def measure_load(open_model: Callable[[], object], loads: int, clock: Clock = time.perf_counter_ns) -> Timing:
    """Time opening a model, its file in the system's cache and its runtime already imported."""
    samples = []
    for _ in range(loads):
        started = clock()
        open_model()
        samples.append((clock() - started) / 1e6)
    return Timing(tuple(samples))


def _time_one(segmenter: Segmenter, image: NDArray[np.generic], clock: Clock) -> tuple[float, ...]:
    """Milliseconds of each stage."""
    marks = [clock()]
    x = preprocess(image, segmenter.spec)
    marks.append(clock())
    output = segmenter.run(x)
    marks.append(clock())
    postprocess(output, segmenter.spec, (image.shape[0], image.shape[1]), segmenter.threshold)
    marks.append(clock())
    return tuple((after - before) / 1e6 for before, after in itertools.pairwise(marks))
