from __future__ import annotations

import json

import numpy as np
import pytest

from unet_edge_bench.latency import STAGES, Protocol, Timing, measure, measure_load, total, turns
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.segmenter import Segmenter

IMAGE = np.zeros((6, 9), np.uint8)


class Stopwatch:
    """A clock that stands still until somebody works."""

    def __init__(self):
        self.now = 0
        self.calls = []

    def __call__(self):
        return self.now


class Worker(Backend):
    """Takes the given milliseconds, one after the other, and writes down when it is called."""

    def __init__(self, label, spec, clock, *durations):
        self.label, self.spec, self.path, self.clock, self.durations = label, spec, label, clock, list(durations)

    def _run(self, batch):
        self.clock.calls.append(self.label)
        self.clock.now += 1_000_000 * (self.durations.pop(0) if len(self.durations) > 1 else self.durations[0])
        return np.zeros((len(batch), 2, *batch.shape[2:]), np.float32)


@pytest.fixture
def clock():
    return Stopwatch()


def workers(make_spec, clock, *durations):
    spec = make_spec(channels=1)
    return {label: Segmenter(Worker(label, spec, clock, *ms)) for label, ms in zip("AB", durations, strict=True)}


def test_backends_take_turns_in_changing_order(make_spec, clock):
    protocol = Protocol(warmup=2, rounds=3, repeats=1)
    measure(workers(make_spec, clock, [5], [7]), IMAGE, protocol, clock)
    # Warm-up, then each turn with one untimed and one timed image: A B, B A, A B.
    assert "".join(clock.calls) == "AABB" + "AABB" + "BBAA" + "AABB"


def test_only_the_timed_images_count(make_spec, clock):
    found = measure(
        workers(make_spec, clock, [900, 800, 3, 4, 700, 5, 6], [2]), IMAGE, Protocol(1, 2, 2, 1), clock
    )  # the warm-up, the first of each turn
    assert found["A"]["inference"].samples == (3, 4, 5, 6)
    assert found["B"]["inference"].samples == (2, 2, 2, 2)
    assert found["A"]["preprocess"].samples == found["A"]["postprocess"].samples == (0, 0, 0, 0)
    assert list(found["A"]) == list(STAGES)


def test_statistics():
    timing = Timing(tuple(float(n) for n in range(101)))
    assert (timing.p5, timing.median, timing.p95) == (5, 50, 95)
    data = json.loads(json.dumps(timing.to_dict()))
    assert data["median"] == 50
    assert len(data["samples"]) == 101


def test_an_order_is_claimed_only_without_overlap():
    quick, slow, wide = Timing((1.0, 2.0)), Timing((3.0, 4.0)), Timing((1.5, 3.5))
    assert not quick.overlaps(slow)
    assert not slow.overlaps(quick)
    assert quick.overlaps(wide)
    assert wide.overlaps(slow)


def test_stages_add_up_image_by_image():
    stages = {stage: Timing((n + 1.0, n + 10.0)) for n, stage in enumerate(STAGES)}
    assert total(stages).samples == (6, 33)


def test_turns():
    assert list(turns(["a", "b", "c"], 2)) == ["a", "b", "c", "c", "b", "a"]


def test_load_time(clock):
    def open_model():
        clock.now += 2_500_000

    assert measure_load(open_model, 3, clock).samples == (2.5, 2.5, 2.5)


def test_real_time_passes(make_spec):
    found = measure(workers(make_spec, Stopwatch(), [1], [1]), IMAGE, Protocol(1, 1, 1, 1))
    assert all(found[name][stage].median > 0 for name in "AB" for stage in STAGES)
