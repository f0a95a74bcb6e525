from __future__ import annotations

import importlib.util
import json
from pathlib import Path

import pytest
from click.testing import CliRunner

import unet_edge_bench.demo
from unet_edge.cli import main
from unet_edge_runtime.errors import TrainingError


def invoke(*arguments):
    return CliRunner().invoke(main, ["demo", *map(str, arguments)])


@pytest.fixture
def asked(monkeypatch, tmp_path):
    """What the command asks for, instead of doing it."""
    seen = {}

    def run_demo(folder, **options):
        seen.update(folder=folder, **options)
        return Path("demo/index.html")

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(unet_edge_bench.demo, "run_demo", run_demo)
    return seen


def test_the_page_is_the_result(asked, tmp_path):
    done = invoke()
    assert done.exit_code == 0, done.output
    assert done.stdout == f"{tmp_path / 'demo' / 'index.html'}\n"
    assert (asked["folder"], asked["epochs"], asked["force"]) == (Path("demo"), None, False)


def test_options_arrive(asked):
    assert invoke("-o", "here", "--epochs", 3, "--force").exit_code == 0
    assert (asked["folder"], asked["epochs"], asked["force"]) == (Path("here"), 3, True)


def test_a_failure_is_one_line(monkeypatch):
    def fail(folder, **options):
        raise TrainingError("the validation Dice stayed too low")

    monkeypatch.setattr(unet_edge_bench.demo, "run_demo", fail)
    done = invoke()
    assert done.exit_code == 1
    assert done.stderr.strip() == "Error: the validation Dice stayed too low"


@pytest.mark.slow
def test_the_whole_demo(tmp_path):
    if importlib.util.find_spec("nilearn") is None:
        pytest.skip("nilearn is not installed: pip install --no-deps nilearn")
    done = invoke("-o", tmp_path / "demo")
    assert done.exit_code == 0, done.output
    results = json.loads((tmp_path / "demo" / "results.json").read_text())
    dice = {c["name"]: c["dice"] for c in results["backends"]["onnx"]["scores"]["classes"]}
    assert dice["grey matter"] >= 0.85
    assert dice["white matter"] >= 0.80
    assert sum(step["seconds"] for step in results["steps"]) < 300
