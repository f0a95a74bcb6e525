"""Pretrained models where a command takes a MODEL."""

import json
import shutil
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner, Result
from PIL import Image

from tests.nuclei import draw_nuclei
from unet_edge.cli import main
from unet_edge_runtime.pretrained import pretrained


def run(*arguments: object) -> Result:
    return CliRunner().invoke(main, [str(argument) for argument in arguments], prog_name="unet-edge")


@pytest.fixture
def cells(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A working folder with two drawn images and their masks."""
    monkeypatch.chdir(tmp_path)
    for kind in ("images", "masks"):
        (tmp_path / kind).mkdir()
    for seed in range(2):
        image, truth = draw_nuclei(seed=seed)
        Image.fromarray(image).save(tmp_path / "images" / f"{seed}.png")
        Image.fromarray(truth.astype(np.uint8) * 255).save(tmp_path / "masks" / f"{seed}.png")
    return tmp_path


def test_the_list_has_a_line_for_each_model_and_says_what_matters():
    nuclei = pretrained("nuclei")
    (line,) = (line for line in run("models").stdout.splitlines() if line.startswith("nuclei: "))
    for part in (nuclei.purpose, f"Dice {nuclei.scores['dice']:.4f}", nuclei.licence, str(nuclei.card), " MB;"):
        assert part in line
    (entry,) = (entry for entry in json.loads(run("models", "--json").stdout) if entry["name"] == "nuclei")
    assert Path(entry["path"]).is_file()
    assert entry["sha256"] == nuclei.sha256


def test_a_name_is_a_model_in_every_command_that_takes_one(cells):
    result = run("predict", "--model", "nuclei", "images", "-o", "out")
    assert result.exit_code == 0, result.output
    assert sorted(path.name for path in Path("out").iterdir()) == ["0_OUT.png", "1_OUT.png"]
    result = run("evaluate", "nuclei", "--images", "images", "--masks", "masks", "--json")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["dice"] > 0.8
    assert json.loads(run("inspect", "nuclei", "--json").stdout)["kind"] == "onnx"
    shutil.copyfile(pretrained("nuclei").path, "copy.onnx")
    result = run("verify", "nuclei", "copy.onnx", "--images", "images")
    assert result.exit_code == 0, result.output


def test_a_file_of_that_name_wins_and_a_folder_does_not_and_both_are_said(cells):
    (cells / "nuclei").mkdir()
    result = run("predict", "--model", "nuclei", "images/0.png")
    assert result.exit_code == 0, result.output
    assert "nuclei is the pretrained model; the folder here is ./nuclei" in result.stderr
    (cells / "nuclei").rmdir()
    (cells / "nuclei").write_text("not a model", encoding="utf-8")
    result = run("predict", "--model", "nuclei", "--backend", "onnx", "images/0.png")
    assert result.exit_code == 1
    assert "nuclei is the file here" in result.stderr
    assert "cannot load it" in result.stderr


def test_an_unknown_name_lists_those_there_are(cells):
    result = run("predict", "--model", "nucleus", "images/0.png")
    assert result.exit_code == 2
    assert "no pretrained model of that name (did you mean nuclei?)" in result.stderr
    assert "run/none.pth: no such model file" in run("evaluate", "run/none.pth").stderr


def test_a_backend_that_does_not_run_it_is_refused_in_one_line(cells):
    result = run("predict", "--model", "nuclei", "--backend", "torch", "images/0.png")
    assert result.exit_code == 1
    assert result.stderr.strip().endswith("is an ONNX model, which backend torch does not run: leave --backend out")


def test_help_says_where_names_come_from():
    assert "unet-edge models" in " ".join(run("predict", "--help").output.split())


def test_a_run_folder_is_no_model_and_its_checkpoint_is_named(cells):
    (cells / "run").mkdir()
    (cells / "run" / "best.pth").write_bytes(b"")
    result = run("predict", "--model", "run", "images/0.png")
    assert result.exit_code == 1
    assert "run is the folder of a run: give run/best.pth" in result.stderr
