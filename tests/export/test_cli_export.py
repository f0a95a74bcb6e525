"""`unet-edge export` as a user meets it."""

from __future__ import annotations

import json
import shlex

import pytest
import torch
from click.testing import CliRunner

from unet_edge.cli import main


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
    assert onnx["executed"]
    assert onnx["agreement"]["equal_labels"] >= 0.99999
    assert coreml["path"] == str(out / "best.mlpackage")
    assert coreml["bytes"] > 1000
    assert sorted(path.name for path in out.iterdir()) == ["best.mlpackage", "best.onnx"]


def test_core_ml_off_macos_is_said_plainly(make_checkpoint, monkeypatch):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    monkeypatch.setattr("sys.platform", "linux")
    result = run(make_checkpoint(), "--format", "coreml")
    assert result.exit_code == 0, result.output
    assert "converted, not executed on this machine (Core ML runs on macOS only)" in result.stdout
    assert result.stdout.splitlines()[-1].startswith("on a Mac: unet-edge predict -m ")


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
