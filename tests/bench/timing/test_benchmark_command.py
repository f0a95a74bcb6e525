from __future__ import annotations

import json
import re
import shutil

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unet_edge.cli import main

SHORT = ("--launches", "2", "--rounds", "2", "--seconds", "0", "--threads", "1", "--quick")


def run(*arguments):
    return CliRunner().invoke(main, ["benchmark", *map(str, arguments)])


@pytest.fixture(scope="module")
def finished(tmp_path_factory, files, pictures):
    """The folder of a benchmark, and what the command said."""
    folder = tmp_path_factory.mktemp("finished") / "out"
    given = ("--images", pictures.images, "--masks", pictures.masks, "--output", folder)
    return folder, run(files.checkpoint, files.onnx, files.other, *given, *SHORT)


def test_it_leaves_three_files_and_a_table(finished):
    folder, done = finished
    assert done.exit_code == 1, "one of the models is wrong"
    assert {path.name for path in folder.iterdir()} == {"results.json", "results.md", "index.html"}
    page = (folder / "index.html").read_text()
    for label in ("model.pth", "model.onnx", "other.onnx"):
        assert re.search(rf"{re.escape(label)} .*\d", done.stdout)
        assert label in page
        assert label in (folder / "results.md").read_text()
    assert "WRONG other.onnx" in done.stdout
    assert "reference" in done.stdout
    assert re.search(r"cannot tell|times as fast as", done.stdout)
    assert done.stdout.endswith(f"{folder / 'index.html'}\n")


def test_it_says_beforehand_how_long_it_takes(finished):
    assert re.search(r"3 rows, 2 launches of 2 rounds: about \d+ s.*; timed on p1.png, 60x70", finished[1].stderr)


def test_saved_results_are_compared_without_measuring(finished, tmp_path):
    folder, _ = finished
    done = run(folder / "results.json", "--compare", folder, "--fail-if-slower", "5%")
    assert done.exit_code == 0, done.output
    assert "compared with the base" in done.stdout
    assert re.search(r"model\.onnx +1\.0+ \[.*cannot tell", done.stdout)
    slower = json.loads((folder / "results.json").read_text())
    for row in slower["rows"]:
        for launches in row["samples_ms"].values():
            launches[:] = [[[5000 + ms for ms in turn] for turn in launch] for launch in launches]
    (tmp_path / "slower.json").write_text(json.dumps(slower))
    done = run(tmp_path / "slower.json", "--compare", folder, "--fail-if-slower", "5%")
    assert done.exit_code == 1
    assert "SLOWER THAN ALLOWED (5.0%)" in done.stdout
    assert run(tmp_path / "slower.json", "--compare", folder).exit_code == 0
    assert sorted(path.name for path in tmp_path.iterdir()) == ["slower.json"]


def test_json_is_all_of_standard_output(finished):
    folder, _ = finished
    data = json.loads(run(folder / "results.json", "--compare", folder, "--json").stdout)
    assert data["schema"] == "unet-edge-benchmark/1"
    assert data["comparison"]["failed"] is False


def test_an_old_benchmark_is_replaced_somebody_elses_files_are_not(finished, tmp_path):
    folder, _ = finished
    mine = shutil.copytree(folder, tmp_path / "mine")
    (mine / "index.html").write_text("old")
    run(folder / "results.json", "--output", mine)
    assert (mine / "index.html").read_text() != "old"
    theirs = tmp_path / "theirs"
    theirs.mkdir()
    (theirs / "index.html").write_text("a thesis")
    done = run(folder / "results.json", "--output", theirs)
    assert done.exit_code == 1
    assert "holds a index.html that is not a benchmark's: choose another --output" in done.stderr
    assert [(path.name, path.read_text()) for path in theirs.iterdir()] == [("index.html", "a thesis")]


def test_that_is_said_before_measuring(files, tmp_path):
    (tmp_path / "results.json").write_text("{}")
    done = run(files.onnx, "--output", tmp_path)
    assert done.exit_code == 1
    assert (
        done.stderr == f"Error: {tmp_path}: holds a results.json that is not a benchmark's: choose another --output\n"
    )


def test_so_is_a_place_that_cannot_be_made(files, tmp_path):
    (tmp_path / "file").write_text("")
    done = run(files.onnx, "--output", tmp_path / "file" / "out")
    assert done.exit_code == 1
    assert done.stderr == f"Error: {tmp_path / 'file'}: is a file: choose another --output\n"


def test_a_full_disk_does_not_take_the_table_with_it(finished, tmp_path, monkeypatch):
    def full(path, value):
        raise OSError(28, "No space left on device", str(path))

    monkeypatch.setattr("unet_edge_bench.timing.output.write_json", full)
    done = run(finished[0] / "results.json", "--output", tmp_path / "out")
    assert done.exit_code == 1
    assert re.search(r"model\.onnx .*\d", done.stdout)
    assert done.stderr.startswith("Error: ")
    assert "No space left on device" in done.stderr


def test_masks_that_do_not_fit_end_it_before_anything_is_timed(files, pictures, tmp_path):
    shutil.copytree(pictures.masks, tmp_path / "masks")
    for mask in (tmp_path / "masks").iterdir():
        Image.fromarray(np.full((60, 70), 7, np.uint8)).save(mask)
    done = run(files.onnx, "--images", pictures.images, "--masks", tmp_path / "masks", "--output", tmp_path / "a")
    assert done.exit_code == 1
    assert "the reference cannot be scored" in done.stderr
    assert "7" in done.stderr


def test_a_model_that_cannot_be_opened_ends_nothing_but_is_no_success(files, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    done = run(files.onnx, tmp_path / "bad.onnx", "--output", tmp_path / "a", *SHORT)
    assert done.exit_code == 1
    assert done.stderr.startswith(f"cannot be measured: {tmp_path / 'bad.onnx'}: ONNX Runtime cannot load it")
    assert re.search(r"model\.onnx .*\d", done.stdout)
    assert re.search(r"bad\.onnx: failed: .*ONNX Runtime cannot load it", done.stdout)
    done = run(files.fixed, "--sizes", "32x48", "--output", tmp_path / "b", *SHORT)
    assert done.exit_code == 1
    assert "takes 48x64 only, not 32x48" in done.stdout


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--masks", "."], 2, "--masks needs --images"),
        (["--fail-if-slower", "5%"], 2, "--fail-if-slower needs --compare"),
        (["--launches", "1"], 2, "1 is not in the range"),
        (["--precisions", ","], 1, "--precisions: ',' names nothing"),
        (["--sizes", "99984x99984", "--output", "out"], 1, "choose smaller --sizes"),
        (["--sizes", "x"], 1, "--sizes: 'x' is no list of HEIGHTxWIDTH"),
        (["--precisions", "fp16", "--output", "out"], 1, "precision fp16 is not offered on cpu: choose fp32 or bf16"),
    ],
)
def test_bad_options(files, tmp_path, monkeypatch, arguments, code, text):
    monkeypatch.chdir(tmp_path)
    done = run(files.checkpoint, *arguments)
    assert done.exit_code == code
    assert text in done.stderr
    assert "Traceback" not in done.output
