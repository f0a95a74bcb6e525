"""Times of layers: which there are, in which order, and what is refused. How long they take is nobody's test."""

from __future__ import annotations

import platform
import time

import pytest
import torch

from unet_edge.torch_backend import TorchBackend
from unet_edge_bench.costs import MAX_RUNS, estimate, layer_costs, profile
from unet_edge_bench.costs.onnx_profile import _split
from unet_edge_bench.costs.torch_profile import _hooks, module_times
from unet_edge_bench.costs.turns import WARMUP, in_turns, whole_run
from unet_edge_runtime.coreml_plan import ComputePlan, PlannedOperation
from unet_edge_runtime.errors import BackendError, InputError, ModelFileError

SIZE = (48, 64)


def kinds(layers, *wanted):
    return [layer.kind for layer in layers if layer.kind in wanted]


def test_onnx_runtime_times_what_it_executes(network, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    times = profile(network.onnx, SIZE, threads=1, runs=4)
    assert list(tmp_path.rglob("*.json")) == [], "the profiler's file was left behind"
    wanted = ("conv", "conv_transpose", "pool", "concat")
    assert kinds(times, *wanted) == kinds(layer_costs(network.onnx, "onnx", SIZE), *wanted)
    assert "relu" not in kinds(times, "relu"), "fused into the convolution before it"
    assert (times.source, times.runs) == ("measured", 4)
    assert all(layer.ms >= 0 and layer.bytes > 0 for layer in times)
    assert times.plain_ms > 0
    assert times.layers_ms > 0
    assert 0 < times.accounted <= 1
    assert len(times.to_dict()["layers"]) == len(times)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"), reason="other processors keep one memory layout")
def test_reorders_of_memory_are_shown(network):
    layers = list(profile(network.onnx, SIZE, threads=1, runs=2))
    assert layers[-1].kind == "reorder"


def test_a_batch_takes_a_fixed_graph_as_many_runs(network):
    one, three = (profile(network.fixed, SIZE, threads=1, runs=2, batch=batch) for batch in (1, 3))
    assert [layer.name for layer in three] == [layer.name for layer in one]
    assert [layer.bytes for layer in three] == [3 * layer.bytes for layer in one]


def test_the_modules_of_a_checkpoint_have_the_names_of_its_export(network):
    times = profile(network.checkpoint, SIZE, threads=1, runs=2)
    counted = [cost.name for cost in layer_costs(network.checkpoint, "torch", SIZE)]
    norms = [layer.name for layer in times if layer.kind == "batch_norm"]
    assert [layer.name for layer in times if layer.kind != "batch_norm"] == counted
    assert norms == [f"{cost}.norm" for cost in counted if cost.endswith(("double_conv.0", "double_conv.2"))]


def test_what_a_module_reads_and_writes_is_its_traffic(network):
    """Convolutions have their biases in the batch norms, until these are folded away."""
    times = {layer.name: layer.bytes for layer in profile(network.checkpoint, SIZE, threads=1, runs=1)}
    for cost in layer_costs(network.checkpoint, "torch", SIZE):
        if ".double_conv." not in cost.name or cost.kind == "relu":
            assert times[cost.name] == cost.bytes, cost


def test_the_hooks_measure_the_module_that_is_slow(network, monkeypatch):
    """A module that sleeps gets the time, and nobody else."""
    build = TorchBackend.__init__

    def slow(self, *arguments, **options):
        build(self, *arguments, **options)
        layer = self.model.get_submodule("down2.maxpool_conv.1.double_conv.3")
        forward = layer.forward
        layer.forward = lambda x: (time.sleep(0.05), forward(x))[1]

    monkeypatch.setattr(TorchBackend, "__init__", slow)
    threads = torch.get_num_threads()
    try:
        layers = module_times(network.checkpoint, SIZE, 1, 1, 2)["layers"]
    finally:
        torch.set_num_threads(threads)
    slowest = max(layers, key=lambda layer: layer["ms"])
    assert slowest["name"] == "down2.maxpool_conv.1.double_conv.2"
    assert slowest["ms"] >= 50


def test_no_hook_stays(network):
    backend = TorchBackend(network.checkpoint, device="cpu")
    with _hooks(backend.model) as events:
        pass
    backend.model(torch.zeros(1, 3, *SIZE))
    assert events == []


def test_whole_runs_are_compared_pair_by_pair():
    """Everything slows down to a tenth meanwhile: medians of all runs would compare fast ones with slow ones."""
    slowness = [1, 1, 1, 10, 10]
    profiled, plain, sums = ([base * factor for factor in slowness] for base in (12.0, 10.0, 9.0))
    plain[1] = 40.0
    found = whole_run(profiled, plain, sums)
    assert found["accounted"] == pytest.approx(0.75)
    assert found["overhead"] == pytest.approx(0.2)
    assert (found["profiled_ms"], found["plain_ms"]) == (12.0, 40.0)


def test_both_sorts_of_run_take_turns():
    order = []
    profiled, plain = in_turns(3, order.append)
    assert len(profiled) == len(plain) == 3
    assert order == [True, False, False, True] * ((WARMUP + 3) // 2)


def test_runs_that_differ_are_not_averaged(tmp_path):
    def run(*names):
        return [{"name": name} for name in names]

    assert _split(run("a", "b", "a", "b"), 2, tmp_path) == [run("a", "b")] * 2
    for events in (run("a", "b", "a", "c"), run("a", "b", "a"), []):
        with pytest.raises(BackendError, match="does not report the same nodes of every run"):
            _split(events, 2, tmp_path)


def test_a_plan_shares_the_measured_time_out():
    operations = [
        PlannedOperation("conv", "a", "ane", ("ane",), 0.6),
        PlannedOperation("relu", "b", "ane", ("ane",), None),
        PlannedOperation("reduce_argmax", "c", "cpu", ("cpu",), 0.2),
    ]
    times = estimate(ComputePlan("ane", tuple(operations)), 8.0)
    assert [(layer.name, layer.kind) for layer in times] == [("a", "conv"), ("b", "relu"), ("c", "argmax")]
    assert [layer.ms for layer in times] == pytest.approx([6.0, 0.0, 2.0])
    assert (times.source, times.plain_ms, times.accounted, times.overhead) == ("estimated", 8.0, 1.0, 0.0)
    assert estimate(ComputePlan("ane", tuple(operations[1:2])), 8.0) is None


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"runs": 0}, "take 1 to 1000 runs"),
        ({"runs": MAX_RUNS + 1}, "take 1 to 1000 runs"),
        ({"threads": 0}, "1 thread"),
        ({"size": (0, 64)}, "at least 1"),
    ],
)
def test_what_cannot_be_timed(network, changes, message):
    with pytest.raises(InputError, match=message):
        profile(network.onnx, **{"size": SIZE, "threads": 1, "runs": 2, **changes})


def test_files_that_cannot_be_timed(network, tmp_path):
    (tmp_path / "model.mlpackage").mkdir()
    with pytest.raises(BackendError, match="estimate them from its compute plan"):
        profile(tmp_path / "model.mlpackage", SIZE, 1, 2)
    with pytest.raises(ModelFileError, match="no such model file"):
        profile(tmp_path / "none.onnx", SIZE, 1, 2)
    for path in (network.onnx, network.checkpoint):
        with pytest.raises(BackendError, match="multiples of 4, not 50x64"):
            profile(path, (50, 64), 1, 2)
