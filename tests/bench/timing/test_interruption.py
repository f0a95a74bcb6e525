"""Ctrl-C in a running benchmark: what was measured is written, and says that it is not all."""

from __future__ import annotations

import pytest

from tests.bench.timing.conftest import SHORT
from unet_edge_bench.timing.benchmark import Listener, Order, benchmark
from unet_edge_bench.timing.choices import Choices


def interrupted(files, words, count):
    """Results of a benchmark that Ctrl-C ended when it had said that label so often."""
    seen = []

    def progress(done, total, label):
        seen.append(label)
        if seen.count(words) == count:
            raise KeyboardInterrupt

    order = Order(Choices((files.onnx, files.onnx), threads=(1,)), SHORT, ceiling_seconds=0.05, profile_runs=0)
    return benchmark(order, Listener(progress=progress))


def test_while_rows_are_timed(files):
    first, second = interrupted(files, "model.onnx", 3)["rows"]  # A B, B and then
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert [len(turns) for turns in first["throughput"]["images"]] == [1]
    assert [len(turns) for turns in second["throughput"]["images"]] == [2]
    assert first["statistics"]["total"]["low"] is None  # one turn tells nothing of the next


def test_while_layers_are_counted(files):
    results = interrupted(files, "layers of model.onnx #2", 1)
    assert not results["complete"]
    first, second = results["rows"]
    assert first["cost"]["macs"] > 0
    assert second["cost"] is None
    assert len(second["throughput"]["images"]) == 2


@pytest.mark.parametrize("words", ["compare model.onnx", "measure the machine", "model.onnx"])
def test_before_the_first_turn_there_is_nothing_to_keep(files, words):
    with pytest.raises(KeyboardInterrupt):
        interrupted(files, words, 1)
