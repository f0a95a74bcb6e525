from __future__ import annotations

import os

import onnx
import pytest

from unet_edge_bench import machine
from unet_edge_bench.timing import ceilings
from unet_edge_bench.timing.benchmark import _doubts
from unet_edge_bench.timing.noise import DRIFT, SPREAD, Noise
from unet_edge_bench.timing.product_graph import product_graph


def noise(before=10.0, after=10.0, samples=((10.0, 10.1), (9.9, 10.0))):
    return Noise(1, before, after, [list(launch) for launch in samples]).to_dict()


def test_a_steady_machine_is_reliable():
    found = noise()
    assert found["reliable"]
    assert found["reasons"] == []
    assert found["drift"] == 0


def test_a_machine_that_became_slower_is_not():
    found = noise(after=10.0 * (1 + 2 * DRIFT))
    assert not found["reliable"]
    assert found["reasons"] == ["the reference loop took 10% longer after the run than before (limit 5%)"]
    assert "shorter" in noise(after=9.0)["reasons"][0]


def test_nor_is_one_that_goes_up_and_down():
    found = noise(samples=[(10.0, 10.0 * (1 + 3 * SPREAD))] * 3)
    assert not found["reliable"]
    assert "spread over 4" in found["reasons"][0]


def test_the_ceiling_is_the_best_of_what_was_measured():
    found = ceilings.measure_ceiling(1, seconds=0.05)
    assert found["threads"] == 1
    assert found["gflops"] == max(found["samples"]["gflops"]) > 0.1
    assert found["gbytes_per_s"] == max(found["samples"]["gbytes_per_s"]) > 0.1
    assert len(found["samples"]["gflops"]) == 2 * len(ceilings.SIDES)


def test_both_products_multiply():
    first, second = ceilings._matrices(200)
    expected = pytest.approx(first.astype(float) @ second.astype(float), rel=1e-5)
    assert ceilings._numpy_product(200)() == expected
    assert ceilings._runtime_product(200, threads=1)()[0] == expected


@pytest.mark.parametrize("side", [1, 200, 20000])
def test_the_model_of_a_product_follows_the_format(side):
    model = onnx.load_from_string(product_graph(side))
    onnx.checker.check_model(model, full_check=True)
    assert onnx.printer.to_text(model.graph).split(") {")[0].count(f"float[{side},{side}]") == 3


def look(threads, gflops, gbytes):
    return {
        "threads": threads,
        "gflops": gflops,
        "gbytes_per_s": gbytes,
        "what": "x",
        "samples": {"gflops": [gflops], "gbytes_per_s": [gbytes]},
    }


def test_of_two_looks_the_better_counts_and_more_threads_are_never_worse():
    found = ceilings.highest([[look(1, 100, 20), look(2, 60, 30)], [look(1, 90, 25), look(2, 80, 10)]])
    assert [(one["gflops"], one["gbytes_per_s"]) for one in found] == [(100, 25), (100, 30)]
    assert found[1]["samples"] == {"gflops": [60, 80], "gbytes_per_s": [30, 10]}


def test_a_machine_whose_rate_changed_is_doubted():
    doubts = _doubts([look(1, 100, 20), look(2, 200, 20)], [look(1, 95, 20), look(2, 100, 20)])
    assert doubts == ["with 2 threads the highest rate of arithmetic was 200 GFLOP/s before and 100 after"]
    assert not Noise(1, 10.0, 10.0, [[10.0]], doubts).to_dict()["reliable"]


def test_rates_follow_from_durations(monkeypatch):
    monkeypatch.setattr(ceilings, "_durations", lambda work, seconds: [4_000_000, 2_000_000])
    assert ceilings._rate(lambda: None, 100, 1) == pytest.approx(2 * 100**3 / 2e6)
    assert ceilings._copy_rates(2, 1) == pytest.approx([ceilings.BYTES / 4e6, ceilings.BYTES / 2e6])


def test_every_byte_is_copied_whatever_the_threads(monkeypatch):
    copied = []
    monkeypatch.setattr(ceilings, "BYTES", 8000)
    monkeypatch.setattr(ceilings, "_durations", lambda work, seconds: [work() or 1])
    real = ceilings.np.copyto
    monkeypatch.setattr(ceilings.np, "copyto", lambda to, of: (copied.append(of.nbytes), real(to, of)))
    ceilings._copy_rates(3, 1)
    assert sum(copied) == 4000
    assert len(copied) == 3


@pytest.mark.parametrize(
    ("facts", "text"),
    [
        ({"processor": "A CPU", "machine": "x86_64", "cores": 2, "memory_bytes": 24 << 30}, "A CPU, 2 cores, 24 GiB"),
        ({"processor": "", "machine": "arm64", "cores": 1, "memory_bytes": None}, "arm64, 1 core"),
        ({}, ""),
    ],
)
def test_a_machine_in_words_leaves_out_what_is_unknown(facts, text):
    assert machine.machine_text(facts) == text


def test_hyper_threads_are_one_core(monkeypatch):
    siblings = {0: "0,2", 1: "1,3", 2: "0,2", 3: "1,3"}
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(siblings), raising=False)
    monkeypatch.setattr(machine, "_text", lambda path: siblings[int(path.split("/cpu")[2].partition("/")[0])])
    assert machine.physical_cores() == 2
    monkeypatch.setattr(machine, "_text", lambda path: None)
    assert machine.physical_cores() == 4
