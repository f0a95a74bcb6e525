"""`unet-edge export` as a user meets it."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from click.testing import CliRunner

import unet_edge.cli.export as cli
from unet_edge.cli import main
from unet_edge.cli.export import HEADS, SUFFIXES
from unet_edge_export.compress import COMPRESSIONS
from unet_edge_export.options import EXPORT_HEADS, FORMATS
from unet_edge_export.to_coreml import TARGETS, describe_package


def run(*arguments: object):
    return CliRunner().invoke(main, ["export", *map(str, arguments)])


def test_the_report(make_checkpoint, photos):
    checkpoint = make_checkpoint()
    result = run(checkpoint, "--images", photos[0].parent)
    assert result.exit_code == 0, result.output
    lines = result.stdout.splitlines()
    assert lines[0].startswith(f"{checkpoint.with_suffix('.onnx')}  (")
    assert "MB, fp32, 64x96, logits)" in lines[0]
    assert "largest logit difference" in lines[1]
    assert "allowed 1.0e-04" in lines[1]
    assert "equal labels  " in lines[2]
    assert "given image" in lines[3]
    command = shlex.split(lines[-1])
    assert command[:4] == ["unet-edge", "predict", "-m", str(checkpoint.with_suffix(".onnx"))]
    assert "converting" in result.stderr
    assert "comparing with PyTorch on" in result.stderr


def test_both_formats_into_a_folder_as_json(make_checkpoint, photos, tmp_path):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    out = tmp_path / "deploy"
    checkpoint = make_checkpoint()
    result = run(checkpoint, "--format", "onnx", "--format", "coreml", "-o", out, "--json")
    assert result.exit_code == 0, result.output
    onnx, coreml = json.loads(result.stdout)["artefacts"]
    assert onnx["path"] == str(out / "best.onnx")
    assert onnx["agreement"]["equal_labels"] >= 0.99999
    assert coreml["path"] == str(out / "best.mlpackage")
    assert coreml["bytes"] > 1000
    assert sorted(path.name for path in out.iterdir()) == ["best.mlpackage", "best.onnx"]


def test_core_ml_off_macos_is_said_plainly(make_checkpoint, monkeypatch):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    monkeypatch.setattr("sys.platform", "linux")
    result = run(make_checkpoint(), "--format", "coreml")
    assert result.exit_code == 0, result.output
    assert "checked with the reference interpreter: it proves the file, not the device's arithmetic" in result.stdout
    assert "equal labels  " in result.stdout
    assert result.stdout.splitlines()[-1].startswith("on a Mac: unet-edge predict -m ")


def test_a_package_for_apple_hardware(make_checkpoint, photos, tmp_path):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    path = tmp_path / "m.mlpackage"
    told = ["--author", "A. Turing", "--license", "CC0", "--description", "cars", "--model-version", "1.2"]
    sizes = ["--size", "32x48", "--size", "64x64"]
    options = ["--head", "mask-image", "--compress", "palette8", "--images", photos[0].parent]
    result = run(make_checkpoint(), "--format", "coreml", "-o", path, *sizes, *options, *told)
    assert result.exit_code == 0, result.output
    assert "fp16, 32x48 64x64, mask image, palette8)" in result.stdout
    assert "Dice with PyTorch's labels  " in result.stdout
    assert "(required 0.98)" in result.stdout
    assert "largest" not in result.stdout
    assert "note: a package with several sizes needs macOS15 or later" in result.stdout
    facts = describe_package(path)
    assert list(facts["functions"]) == ["size_32x48", "size_64x64"]
    assert facts["interface"]["mask"] == ["GRAYSCALE picture", 32, 48]
    said = [facts[key] for key in ("author", "license", "description", "version")]
    assert said == ["A. Turing", "CC0", "cars", "1.2"]
    assert facts["spec"]["provenance"]["compression"]["name"] == "palette8"


def test_calibration_and_mixed_precision(make_checkpoint, photos, tmp_path):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    options = ["--compress", "w8a8", "--calibration", photos[0].parent, "--images", photos[0].parent, "--size", "32x48"]
    options += ["--precision", "mixed", "--fp32-layers", "outc, up2"]
    result = run(make_checkpoint(scale=0.1), "--format", "coreml", "-o", tmp_path / "m.mlpackage", *options)
    assert result.exit_code == 0, result.output
    assert "calibrating on " in result.stderr
    facts = describe_package(tmp_path / "m.mlpackage")
    assert "given image" in facts["spec"]["provenance"]["compression"]["calibrated_on"]
    assert facts["operations"]["quantize"] > 0
    assert facts["interface"]["logits"][0] == "FLOAT32"


def test_choices_are_those_of_the_exporter():
    """The command line spells them out, because it must start without the exporter."""
    assert SUFFIXES == FORMATS
    assert HEADS == EXPORT_HEADS
    assert cli.TARGETS == TARGETS
    assert tuple(COMPRESSIONS) == cli.COMPRESSIONS


def test_a_file_name_for_one_format(make_checkpoint, photos, tmp_path):
    result = run(make_checkpoint(), "-o", tmp_path / "my model.onnx", "--head", "classmap", "--size", "64x64")
    assert result.exit_code == 0, result.output
    assert (tmp_path / "my model.onnx").is_file()
    assert "largest" not in result.stdout
    assert shlex.split(result.stdout.splitlines()[-1])[3] == str(tmp_path / "my model.onnx")


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["--size", "60"], 2, "is not HEIGHTxWIDTH"),
        (["--size", "61x96"], 1, "the nearest is 60x96"),
        (["--format", "tflite"], 2, "tflite"),
        (["--format", "onnx", "--format", "coreml", "-o", "x.onnx"], 2, "for several formats give a folder"),
        (["-o", "x.bin"], 2, "a file for --format onnx ends in .onnx"),
        (["--format", "coreml", "-o", "x.onnx"], 1, "coreml artefacts end in .mlpackage"),
        (["--precision", "fp16"], 1, "onnx is exported in fp32"),
        (["--format", "coreml", "--compress", "zip"], 2, "zip"),
        (["--compress", "int8"], 1, "--compress is for Core ML: add --format coreml"),
        (["--format", "coreml", "--size", "32x32", "--size", "64x64", "--target", "macOS14"], 1, "needs macOS15"),
        (["--format", "coreml", "--precision", "mixed"], 1, "name the layers that stay in fp32"),
        (["--scale", "0.3"], 1, "leave --scale out"),
    ],
)
def test_mistakes_are_one_line(make_checkpoint, arguments, code, message):
    result = run(make_checkpoint(), *arguments)
    assert result.exit_code == code
    assert message in result.stderr
    assert "Traceback" not in result.output
    assert sum(line.startswith("Error") for line in result.stderr.splitlines()) == 1


def test_a_foreign_checkpoint(tmp_path):
    torch.save({"state_dict": {"a": torch.zeros(1)}}, tmp_path / "foreign.pth")
    result = run(tmp_path / "foreign.pth")
    assert result.exit_code == 1
    assert "is not a checkpoint of this U-Net" in result.stderr or "not a checkpoint" in result.stderr
