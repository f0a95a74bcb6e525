"""On an imitated Mac: compute units are rows, with their plans; elsewhere packages are compared but not timed."""

from __future__ import annotations

import os
import sys
from types import SimpleNamespace

import pytest

from tests.bench.timing.conftest import SHORT
from tests.mac import FAKES, make_fake_package, pretend_mac
from unet_edge_bench.timing import choices
from unet_edge_bench.timing.benchmark import Order, benchmark
from unet_edge_bench.timing.choices import Choices
from unet_edge_runtime import load_backend

# The workers must take this machine for a Mac too.
SITE = """
import sys
from types import SimpleNamespace
import unet_edge_runtime.coreml_client as client
client.sys = SimpleNamespace(platform="darwin", executable=sys.executable)
"""


@pytest.fixture
def package(tmp_path, files):
    spec = load_backend(files.checkpoint).spec.replace(input_size=(48, 64))
    return make_fake_package(tmp_path / "net.mlpackage", files.fixed.read_bytes(), spec)


def measure(*models, **how):
    return benchmark(Order(Choices(models, threads=(1,), **how), SHORT, ceiling_seconds=0.05, profile_runs=0))["rows"]


def test_compute_units_are_rows_with_plans(package, tmp_path, monkeypatch):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_predict="kill")
    monkeypatch.setattr(choices, "sys", SimpleNamespace(platform="darwin"))
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(SITE)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(FAKES)]))
    rows = {row["compute_units"]: row for row in measure(package)}
    assert list(rows) == ["cpu", "gpu", "ane", "all"]
    assert [row["status"] for row in rows.values()] == ["ok", "ok", "failed", "ok"]
    assert "net.mlpackage" in rows["ane"]["reason"]
    assert rows["cpu"]["plan"]["compute_units"] == "cpu"
    assert rows["all"]["plan"]["devices"]["ane"]["operations"] > 0
    assert rows["ane"]["plan"] is None
    assert rows["gpu"]["agreement"]["passed"]
    assert rows["cpu"]["limit"] is None
    assert rows["cpu"]["label"] == "net.mlpackage, cpu"


def test_elsewhere_a_package_is_compared_and_not_timed(files, tmp_path):
    pytest.importorskip("coremltools")
    from unet_edge_export import export_model

    if sys.platform == "darwin":
        pytest.skip("a Mac times it")
    path = export_model(files.checkpoint, "coreml", tmp_path / "net.mlpackage", size=(48, 64), precision="fp32").path
    reference, row = measure(files.checkpoint, path)
    assert reference["status"] == "ok"
    assert row["status"] == "untimed"
    assert row["reason"] == "Core ML runs on macOS only: here its outputs are computed and compared, not timed"
    assert row["proves"]
    assert row["agreement"]["passed"]
    assert row["size"] == [48, 64]
    assert row["statistics"] is None
