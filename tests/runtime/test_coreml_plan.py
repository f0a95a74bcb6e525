"""The compute plan: who runs what, and what share of the cost that is."""

from __future__ import annotations

import pytest

from tests.mac import make_fake_package, pretend_mac
from unet_edge_runtime.coreml_plan import ComputePlan, PlannedOperation, compute_plan
from unet_edge_runtime.errors import BackendError, ModelFileError


@pytest.fixture
def package(small_onnx, make_spec, tmp_path, monkeypatch):
    pretend_mac(monkeypatch, tmp_path / "cache")
    return make_fake_package(tmp_path / "a.mlpackage", small_onnx.read_bytes(), make_spec(input_size=(32, 48)))


def test_constants_do_not_count(package):
    plan = compute_plan(package, "ane")
    assert [operation.type for operation in plan.operations] == ["cast", "conv", "relu", "conv", "reduce_argmax"]
    assert [operation.device for operation in plan.operations] == ["cpu", "ane", "ane", "ane", "cpu"]
    assert plan.operations[1] == PlannedOperation("conv", "value_3", "ane", ("ane", "cpu"), 0.6)
    assert plan.operations[2].cost is None
    assert plan.count("ane") == 3
    assert plan.cost_share("ane") == pytest.approx(0.75)
    assert plan.cost_share("cpu") == pytest.approx(0.25)
    assert plan.cost_share("gpu") == 0


def test_on_the_cpu_all_is_there(package):
    plan = compute_plan(package, "cpu")
    assert plan.cost_share("cpu") == 1
    assert plan.to_dict()["devices"] == {
        "ane": {"operations": 0, "cost_share": 0},
        "gpu": {"operations": 0, "cost_share": 0},
        "cpu": {"operations": 5, "cost_share": 1},
    }


def test_without_costs_there_is_no_share():
    plan = ComputePlan("ane", (PlannedOperation("conv", "a", "other", (), None),))
    assert plan.cost_share("ane") is None
    assert plan.to_dict()["devices"]["other"] == {"operations": 1, "cost_share": None}
    assert ComputePlan("ane", ()).cost_share("cpu") is None


@pytest.mark.parametrize("what", ["raise", "kill"])
def test_a_plan_that_fails(package, monkeypatch, tmp_path, what):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_plan=what)
    expected = {"raise": r"makes no compute plan \(plan failed: .* needs macOS 14\.4", "kill": "killed by SIGKILL"}
    with pytest.raises(BackendError, match=expected[what]):
        compute_plan(package, "ane")


def test_an_unknown_function(package):
    with pytest.raises(BackendError, match="no function 'other', only main"):
        compute_plan(package, "ane", "other")


def test_elsewhere_it_needs_a_mac(package, monkeypatch):
    monkeypatch.undo()
    with pytest.raises(
        BackendError, match=r"Core ML runs on macOS only; the compute plan needs a Mac .*unet-edge lint"
    ):
        compute_plan(package)
    with pytest.raises(ModelFileError, match="no such Core ML package"):
        compute_plan(package / "none")
