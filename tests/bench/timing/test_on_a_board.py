"""`python -m unet_edge_bench` with nothing but numpy, Pillow and ONNX Runtime, in every process that it starts."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import jsonschema
import pytest

from tests.layers.test_layers import BLOCK, ROOT
from unet_edge_bench.timing.schema import SCHEMA_FILE

BLOCKED = {"torch", "onnx", "onnxscript", "coremltools", "click", "jinja2", "matplotlib"}

NOT_EVEN = {*BLOCKED, "unet_edge", "unet_edge_export"}


@pytest.fixture
def board(tmp_path):
    """A function (arguments) -> the finished process."""
    (tmp_path / "site").mkdir()
    paths = os.pathsep.join([str(tmp_path / "site"), *(str(ROOT / name) for name in (".", "runtime", "benchmarks"))])

    def run(*arguments, code=("-m", "unet_edge_bench"), blocked=BLOCKED):
        (tmp_path / "site" / "sitecustomize.py").write_text(BLOCK.format(blocked=blocked))
        return subprocess.run(
            [sys.executable, *code, *map(str, arguments)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={**os.environ, "PYTHONPATH": paths},
        )

    return run


SHORT = ("--launches", "2", "--rounds", "2", "--seconds", "0", "--threads", "1", "--quick")


@pytest.mark.parametrize("package", sorted(BLOCKED))
def test_the_board_has_only_the_runtime(board, package):
    assert f"No module named '{package}'" in board(code=("-c", f"import {package}")).stderr


def test_it_measures_compares_and_counts(board, files, pictures, tmp_path):
    done = board(files.onnx, files.other, "--images", pictures.images, "--json", "out.json", *SHORT, blocked=NOT_EVEN)
    assert done.returncode == 1, "one of the models is wrong"
    results = json.loads((tmp_path / "out.json").read_text())
    jsonschema.validate(results, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))
    first, second = results["rows"]
    assert (first["status"], second["status"]) == ("ok", "ok")
    assert not second["agreement"]["passed"]
    assert second["agreement"]["compared_images"] == 3
    assert second["limit"]["share"] > 0
    assert any(layer["ms"] for layer in first["layers"])
    assert "WRONG other.onnx" in done.stdout
    assert "reference" in done.stdout
    assert results["command"].startswith("python -m unet_edge_bench")


def test_a_checkpoint_is_a_failed_row_that_names_the_extra(board, files, tmp_path):
    done = board(files.onnx, files.checkpoint, "--json", "out.json", *SHORT)
    assert done.returncode == 1, done.stderr
    row = json.loads((tmp_path / "out.json").read_text())["rows"][1]
    assert row["status"] == "failed"
    assert row["reason"] == "backend torch needs torch: pip install 'unet-edge[train]'"
    assert json.loads((tmp_path / "out.json").read_text())["origin"].startswith("a drawn picture of")


def test_only_failed_rows_are_a_failure(board, files):
    done = board(files.fixed, "--sizes", "32x48", *SHORT)
    assert done.returncode == 1
    assert "takes 48x64 only, not 32x48" in done.stdout


def test_a_limit_without_a_base_is_refused(board, files):
    done = board(files.onnx, "--fail-if-slower", "5%")
    assert done.returncode == 2
    assert "--fail-if-slower needs --compare BASE.json" in done.stderr


def test_errors_are_one_line(board, files):
    for arguments, text in (
        (["none.onnx"], "error: none.onnx: no such model file"),
        ([files.onnx, "--sizes", "big"], "error: --sizes: 'big' is no list of HEIGHTxWIDTH"),
        ([files.onnx, "--compare", "none.json"], "error: none.json: cannot be read"),
        ([files.checkpoint, files.onnx], "error: the reference cannot be opened: backend torch needs torch"),
        ([files.onnx, "--seed", "-1"], "error: the seed is -1"),
        ([files.onnx, "--json", f"{files.onnx}/out.json"], f"error: {files.onnx}: is a file: choose another --json"),
    ):
        done = board(*arguments)
        assert done.returncode == 1
        assert done.stderr.startswith(text)
        assert done.stderr.count("\n") == 1
