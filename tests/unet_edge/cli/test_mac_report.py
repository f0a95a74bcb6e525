"""`unet-edge mac-report` from end to end: a real package and interpreter, and a stand-in for Core ML."""

from __future__ import annotations

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from tests.mac import compilations, make_fake_package, pretend_mac
from unet_edge.cli import COMMANDS, main
from unet_edge.cli.mac_report import command
from unet_edge_export.mil import Package

UNITS = ["cpu", "gpu", "ane", "all"]


@pytest.fixture
def package(small_package, small_onnx):
    return make_fake_package(small_package, small_onnx.read_bytes(), Package(small_package).model_spec)


@pytest.fixture
def photos(tmp_path, photo):
    folder = tmp_path / "photos"
    folder.mkdir()
    Image.fromarray(photo).save(folder / "a.png")
    Image.fromarray(np.ascontiguousarray(photo[::-1, :40])).save(folder / "b.png")
    return folder


def report_of(package, photos, *options):
    target = package.with_name("report.json")
    arguments = [package, "--images", photos, "-o", target, "--runs", "6", *options]
    result = CliRunner().invoke(command, [str(argument) for argument in arguments], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    text = target.read_text()
    # Strict: no NaN, no Infinity, which other readers of JSON refuse.
    return json.loads(text, parse_constant=pytest.fail), text, result


def test_off_macos_it_refuses_in_one_line(small_package, monkeypatch):
    monkeypatch.setitem(COMMANDS, "mac-report", "")
    result = CliRunner().invoke(main, ["mac-report", str(small_package)])
    assert result.exit_code == 1
    assert "Core ML runs on macOS only; run this on a Mac" in result.output
    assert result.output.count("\n") == 1
    assert not list(small_package.parent.glob("*.json"))


def test_all_is_well(package, photos, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache")
    report, text, result = report_of(package, photos)
    assert (report["format"], report["version"]) == ("unet-edge mac report", 1)
    assert list(report["units"]) == UNITS
    assert [unit["status"] for unit in report["units"].values()] == ["ok"] * 4
    assert report["model"]["name"] == "small.mlpackage"
    assert report["model"]["operations"]["conv"] > 5
    assert report["images"] == {"count": 2, "origin": "2 given images", "sizes": [[50, 70], [50, 40]]}
    assert report["reference"]["modes"] == ["stored", "ideal"]
    assert report["machine"]["devices"][2] == {"kind": "NeuralEngine", "cores": 16}
    assert {"chip", "macos", "build", "before", "after", "packages"} <= report["machine"].keys()
    unit = report["units"]["ane"]
    assert unit["plan"]["devices"]["ane"]["cost_share"] == pytest.approx(0.75)
    assert unit["load"]["first_native_ms"] == 5.0
    assert len(unit["load"]["again_ms"]) == 3
    assert unit["latency"]["size"] == [32, 48]
    assert unit["latency"]["native_ms"] == {"median": 1.5, "p5": 1.5, "p95": 1.5, "samples": [1.5] * 6}
    wall = unit["latency"]["wall_ms"]
    assert 0 < wall["p5"] <= wall["median"] <= wall["p95"]
    assert compilations(package) == 1
    assert str(tmp_path) not in text
    for choice in UNITS:
        assert f"\n{choice}" in "\n" + result.stdout
    assert "ane  75% of the cost on the Neural Engine; median 1.50 ms; " in result.stdout


def test_agreement_is_with_the_interpreter_in_both_modes(package, photos, monkeypatch, tmp_path):
    """The stand-in computes in fp32, so it is nearer to the interpreter that does not round."""
    pretend_mac(monkeypatch, tmp_path / "cache")
    found = report_of(package, photos)[0]["units"]["cpu"]["agreement"]
    assert 0 < found["ideal"]["max_logit_difference"] < found["stored"]["max_logit_difference"] < 0.1
    assert found["stored"]["largest_output"] > 1
    for mode in ("stored", "ideal"):
        assert found[mode]["finite"]
        assert found[mode]["equal_labels"] >= 0.999
        assert found[mode]["images"] == 2


def test_a_wrong_device_is_seen(package, photos, monkeypatch, tmp_path, make_model, make_spec):
    """Another network's outputs where Core ML's should be."""
    from unet_edge.checkpoint import save_checkpoint
    from unet_edge_export import export_model

    pretend_mac(monkeypatch, tmp_path / "cache")
    save_checkpoint(tmp_path / "other.pth", make_model(seed=9), make_spec(), {})
    (package / "model").write_bytes(export_model(tmp_path / "other.pth", "onnx", dynamic=True).path.read_bytes())
    found = report_of(package, photos)[0]["units"]["ane"]["agreement"]["stored"]
    assert found["max_logit_difference"] > 0.5
    assert found["equal_labels"] < 0.99


def test_units_that_die_hang_or_refuse_are_recorded(package, photos, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_predict="kill", all_predict="hang", gpu_load="raise")
    report, text, result = report_of(package, photos, "--timeout", "4")
    assert str(tmp_path) not in text
    units = report["units"]
    assert [units[choice]["status"] for choice in UNITS] == ["ok", "failed", "failed", "failed"]
    assert "cannot load it on CPU_AND_GPU (load failed: error code: -14)" in units["gpu"]["errors"]["load"]
    assert units["gpu"]["plan"] is not None
    assert list(units["ane"]["errors"]) == ["predict"]
    assert "killed by SIGKILL while it ran the model on the CPU and Neural Engine" in units["ane"]["errors"]["predict"]
    assert units["ane"]["load"]["first_ms"] > 0
    assert units["ane"]["latency"] is None
    assert "gave no answer within 4 s while it ran the model on all compute units" in units["all"]["errors"]["predict"]
    assert "ane  75% of the cost on the Neural Engine; predict failed: " in result.stdout


def test_a_plan_that_dies_costs_nothing_else(package, photos, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_plan="kill")
    unit = report_of(package, photos)[0]["units"]["ane"]
    assert unit["status"] == "failed"
    assert unit["plan"] is None
    assert list(unit["errors"]) == ["plan"]
    assert unit["latency"]["native_ms"]["median"] == 1.5


def test_a_package_that_does_not_compile_is_still_a_report(package, photos, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache", any_compile="raise")
    report = report_of(package, photos)[0]
    for unit in report["units"].values():
        assert unit["status"] == "failed"
        assert any("Core ML cannot compile it" in message for message in unit["errors"].values())


def test_without_images_it_takes_some(package, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache")
    target = package.with_name("small_mac_report.json")
    result = CliRunner().invoke(command, [str(package), "--runs", "1", "--limit", "1"], catch_exceptions=False)
    assert result.exit_code == 0, result.output
    assert json.loads(target.read_text())["images"]["count"] == 1


def test_an_empty_folder_and_a_file_are_refused(package, monkeypatch, tmp_path):
    from unet_edge_runtime.errors import InputError

    pretend_mac(monkeypatch, tmp_path / "cache")
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="empty"):
        CliRunner().invoke(command, [str(package), "--images", str(tmp_path / "empty")], catch_exceptions=False)
    (tmp_path / "file.mlpackage").write_text("")
    assert "no Core ML package" in CliRunner().invoke(command, [str(tmp_path / "file.mlpackage")]).output
