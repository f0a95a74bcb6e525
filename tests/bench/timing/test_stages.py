from __future__ import annotations

import gc
import threading
import time

import numpy as np
import pytest

from unet_edge_bench.timing.stages import Job
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import BackendError, InputError
from unet_edge_runtime.segmenter import Segmenter

IMAGE = np.zeros((6, 9, 3), np.uint8)


class Stopwatch:
    """A clock that stands still until somebody works."""

    def __init__(self):
        self.now = 0

    def __call__(self):
        return self.now


class Slow(Backend):
    """Takes the given milliseconds, one after the other, the last for ever."""

    def __init__(self, spec, clock, *durations):
        self.spec, self.path, self.clock, self.durations = spec, "slow", clock, list(durations)
        self.shapes, self.collecting = [], []

    def _run(self, batch):
        self.shapes.append(batch.shape)
        self.collecting.append(gc.isenabled())
        duration = self.durations.pop(0) if len(self.durations) > 1 else self.durations[0]
        self.clock.now += round(duration * 1e6)
        return np.stack([batch[:, 0], batch[:, 1]], axis=1)


@pytest.fixture
def make_job(make_spec):
    def make(*durations, image=IMAGE, spec=None, **how):
        clock = Stopwatch()
        return Job(Segmenter(Slow(spec or make_spec(), clock, *durations)), image, clock=clock, **how)

    return make


def test_only_the_network_is_inference(make_job):
    assert make_job(20.0).once() == (0.0, 20.0, 0.0)


def test_a_turn_lasts_as_long_as_asked_and_has_its_samples(make_job):
    turn = make_job(20.0).turn(0.1, 2)
    assert [sum(sample) for sample in turn.samples] == [20.0] * 5
    assert (turn.images, turn.seconds) == (5, 0.1)
    assert len(make_job(20.0).turn(0.0, 3).samples) == 3


def test_warm_up_ends_when_nothing_changes_any_more(make_job):
    job = make_job(900.0, 90.0, 80.0, 70.0, 60.0, 50.0, 40.0, 40.0, 40.0, 40.1)
    warmup = job.warm_up(60)
    assert warmup.stationary
    assert warmup.images == 15  # windows of three: 90, 60, 40, 40.1, 40.1
    assert job.turn(0, 1).samples[0][1] == 40.1


def test_two_windows_that_are_alike_by_chance_do_not_end_it(make_job):
    durations = [100, 80, 79, 60, 59, 40]
    job = make_job(*(float(ms) for ms in durations for _ in range(3)))
    assert job.warm_up(60).images == 24  # until 40 has come three times


def test_warm_up_ends_when_time_is_over_and_says_so(make_job):
    never = [1000.0 / (1 + number) for number in range(100)]
    warmup = make_job(*never).warm_up(2.0)
    assert not warmup.stationary
    assert 3 <= warmup.images < 20


def test_garbage_is_not_collected_while_the_clock_runs(make_job):
    job = make_job(20.0)
    job.turn(0.1, 2)
    assert not any(job.segmenter.backend.collecting)
    assert gc.isenabled()

    def fail(batch):
        raise BackendError("broken")

    job.segmenter.backend._run = fail
    with pytest.raises(BackendError, match="broken"):
        job.turn(0.1, 2)
    assert gc.isenabled()


def test_a_batch_is_one_call(make_job):
    job = make_job(20.0, batch=3)
    turn = job.turn(0.06, 1)
    assert job.segmenter.backend.shapes == [(3, 3, 8, 12)] * 3
    assert (turn.images, len(turn.samples)) == (9, 3)


def test_a_batch_is_not_tiled(make_job, make_spec):
    with pytest.raises(
        InputError, match=r"30x30 at the network's scale.* takes 8x12: a batch needs an image that fits"
    ):
        make_job(1.0, image=np.zeros((30, 30, 3), np.uint8), spec=make_spec(input_size=(8, 12)), batch=2)


def test_streams_work_at_the_same_time(make_spec):
    inside, most, lock = 0, 0, threading.Lock()

    class Waiting(Slow):
        def _run(self, batch):
            nonlocal inside, most
            with lock:
                inside += 1
                most = max(most, inside)
            time.sleep(0.02)
            with lock:
                inside -= 1
            return np.stack([batch[:, 0], batch[:, 1]], axis=1)

    turn = Job(Segmenter(Waiting(make_spec(), None)), IMAGE, streams=3).turn(0.0, 2)
    assert most == 3
    assert (turn.images, len(turn.samples)) == (6, 6)
    assert turn.seconds < 6 * 0.02


def test_an_error_in_a_stream_reaches_the_caller(make_spec):
    class Broken(Slow):
        def _run(self, batch):
            raise BackendError("broken in a stream")

    with pytest.raises(BackendError, match="broken in a stream"):
        Job(Segmenter(Broken(make_spec(), None)), IMAGE, streams=2).turn(0.0, 2)
    assert gc.isenabled()
