"""`unet-edge inspect` of Core ML packages: what they say, and where they would run."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
from click.testing import CliRunner

from tests.mac import make_fake_package, pretend_mac
from unet_edge.cli import main
from unet_edge_export.mil import Package


def run(*arguments):
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="unet-edge")


@pytest.fixture
def mac(monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache")


@pytest.fixture
def package(small_package, small_onnx):
    """The real package, which the stand-in opens too."""
    return make_fake_package(small_package, small_onnx.read_bytes(), Package(small_package).model_spec)


def test_a_package_is_shown(small_package):
    shown = run("inspect", small_package)
    assert shown.exit_code == 0, shown.output
    for expected in ("conv", "RGB picture", "parameters", "class 1", "specification"):
        assert expected in shown.output
    assert "plan" not in shown.output
    facts = json.loads(run("inspect", small_package, "--json").stdout)
    assert facts["interface"] == {"image": ["RGB picture", 32, 48], "logits": ["FLOAT16", 1, 2, 32, 48]}
    assert facts["operations"]["conv"] > 5
    assert facts["parameters"] > 1000
    assert facts["spec"]["input_size"] == [32, 48]


def test_onnx_and_core_ml_count_the_same_parameters(small_package, small_onnx):
    counts = [json.loads(run("inspect", path, "--json").stdout)["parameters"] for path in (small_package, small_onnx)]
    assert counts[0] == counts[1] > 1000


def test_it_needs_no_coremltools(small_package):
    code = (
        "import sys\nsys.modules['coremltools'] = None\nfrom unet_edge.cli import main\n"
        "main(sys.argv[1:], prog_name='unet-edge')"
    )
    done = subprocess.run([sys.executable, "-c", code, "inspect", str(small_package)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_a_folder_that_is_no_package_is_one_line(tmp_path):
    (tmp_path / "a.mlpackage").mkdir()
    result = run("inspect", tmp_path / "a.mlpackage")
    assert result.exit_code == 1
    assert "not a readable Core ML package" in result.output
    assert result.output.count("\n") == 1


@pytest.mark.parametrize("options", [["--compute-units", "ane"], ["--require-ane", "90"]])
def test_off_macos_the_plan_needs_a_mac(small_package, options):
    result = run("inspect", small_package, *options)
    assert result.exit_code == 1
    assert "Core ML runs on macOS only; the compute plan needs a Mac" in result.output
    assert result.output.count("\n") == 1


def test_the_plan(package, mac):
    shown = run("inspect", package, "--compute-units", "ane")
    assert shown.exit_code == 0, shown.output
    assert "Neural Engine       3 operations   75.0% of the cost" in shown.output
    assert "cpu    20.0%  reduce_argmax" in shown.output
    facts = json.loads(run("inspect", package, "--compute-units", "cpu", "--json").stdout)
    assert facts["plan"]["compute_units"] == "cpu"
    assert facts["plan"]["devices"]["cpu"] == {"operations": 5, "cost_share": 1.0}


@pytest.mark.parametrize(("percent", "code"), [("75", 0), ("75.1", 1), ("0", 0), ("100", 1)])
def test_the_gate(package, mac, percent, code):
    result = run("inspect", package, "--require-ane", percent)
    assert result.exit_code == code, result.output
    if code:
        assert f"75.0% of the cost is planned on the Neural Engine, {percent} % are required" in result.output


def test_a_plan_that_crashes_is_one_line(package, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_plan="kill")
    result = run("inspect", package, "--compute-units", "ane")
    assert result.exit_code == 1
    assert "killed by SIGKILL" in result.output
    assert result.output.count("\n") == 1


def test_a_plan_is_for_packages(small_onnx):
    result = run("inspect", small_onnx, "--require-ane", "50")
    assert result.exit_code == 2
    assert "for Core ML packages" in result.output
