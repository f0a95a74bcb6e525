from __future__ import annotations

import dataclasses
import importlib.metadata
import json
import os
import shlex
import shutil
import signal
import sys
from types import SimpleNamespace

import click
import numpy as np
import pytest
from PIL import Image

from unet_edge.cli import main
from unet_edge.training.reporter import Reporter
from unet_edge_bench.demo import BRAIN, run_demo
from unet_edge_bench.demo import run as demo_module
from unet_edge_bench.demo.agreement import Outcome, insist_on_agreement
from unet_edge_bench.demo.artefacts import exported
from unet_edge_bench.demo.facts import by_hand
from unet_edge_bench.demo.folder import DemoFolder
from unet_edge_export import FORMATS, TOLERANCES
from unet_edge_runtime.errors import AgreementError, InputError, MissingExtraError, TrainingError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.scores import Agreement

EXECUTED = ["torch", "onnx", "coreml-ref", *(["coreml"] if sys.platform == "darwin" else [])]
NAMES = ["slice_05", "slice_06", "slice_07"]


@pytest.fixture
def copied(demo, tmp_path):
    """A finished demo to spoil, moved to another folder as users do."""
    return shutil.copytree(demo, tmp_path / "moved", symlinks=True)


def stamps(folder, *patterns):
    """When each file was written; a package's manifest is left out: coremltools writes it again whenever it reads."""
    paths = [path for pattern in patterns for path in sorted(folder.glob(pattern)) if path.is_file()]
    return {path: path.stat().st_mtime_ns for path in paths if path.name != "Manifest.json"}


def test_it_leaves_everything(demo, results):
    for name in ("run/best.pth", "run/best.onnx", "run/best.mlpackage", "run/curves.png", "sample/val.txt"):
        assert (demo / name).exists(), name
    for backend in EXECUTED:
        for name in NAMES:
            mask = np.asarray(Image.open(demo / "predictions" / backend / f"{name}_OUT.png"))
            assert mask.shape == (44, 60)
            assert set(np.unique(mask)) <= {0, 1, 2}
            assert (demo / "predictions" / backend / f"{name}_OVERLAY.png").exists()


def test_the_results_hold_all_numbers(demo, results):
    assert (results["format"], results["version"]) == ("unet-edge demo results", 1)
    assert list(results["backends"]) == EXECUTED
    for name, one in results["backends"].items():
        assert [c["name"] for c in one["scores"]["classes"]] == ["ground", "disc", "bar"]
        assert one["scores"]["classes"][1]["dice"] >= 0.5
        assert (one["agreement"] is None) == (name == "torch")
        latency = one["latency"]
        if name == "coreml-ref":
            assert latency is None  # it proves the file; its time says nothing
            continue
        assert list(latency["stages"]) == ["preprocess", "inference", "postprocess"]
        assert len(latency["total"]["samples"]) == 8
        for timing in (latency["total"], *latency["stages"].values()):
            assert timing["count"] == 8
            assert 0 <= timing["p5"] <= timing["median"] <= timing["p95"]
        assert latency["load"]["median"] > 0
    agreement = results["backends"]["onnx"]["agreement"]
    assert agreement["pixels"] == 3 * 44 * 60
    assert agreement["different_pixels"] <= 1
    assert agreement["max_logit_difference"] <= agreement["allowed_logit_difference"] < 1e-3
    assert [step["name"] for step in results["steps"]] == ["data", "train", "export", "predict", "time"]
    assert all(step["seconds"] > 0 and not step["reused"] for step in results["steps"])
    assert len(results["training"]["loss"]) == len(results["training"]["validation"]) == 6
    assert results["data"]["validation"] == NAMES
    assert results["machine"]["packages"]["torch"]
    assert ("coreml" in results["refused"]) == ("coreml" not in EXECUTED)


def test_artefacts_can_be_told_apart(demo, results):
    artefacts = results["artefacts"]
    assert artefacts["checkpoint"]["sha256"] == sha256_of(demo / "run" / "best.pth")
    assert results["spec"]["provenance"]["checkpoint_sha256"] == artefacts["checkpoint"]["sha256"]
    package = demo / "run" / "best.mlpackage"
    assert artefacts["coreml"]["bytes"] == sum(f.stat().st_size for f in package.rglob("*") if f.is_file())
    assert artefacts["coreml"]["sha256"] == sha256_of(package)
    assert artefacts["coreml"]["precision"] == "fp16"


def test_a_second_run_does_nothing_again(copied, small_plan, results):
    everything = ("run/**/*", "predictions/**/*", "sample/**/*")
    before = stamps(copied, *everything)
    said = []
    assert run_demo(copied, small_plan, say=said.append) == copied / "index.html"
    assert stamps(copied, *everything) == before
    again = json.loads((copied / "results.json").read_text())
    assert again["backends"] == results["backends"]
    assert all(step["reused"] for step in again["steps"])
    assert [s["seconds"] for s in again["steps"]] == [s["seconds"] for s in results["steps"]]
    assert any("nothing has changed" in line for line in said)


def test_only_what_is_missing_is_made(copied, small_plan):
    before = stamps(copied, "run/**/*")
    (copied / "run" / "best.onnx").unlink()
    (copied / "predictions" / "onnx" / "slice_06_OUT.png").unlink()
    (copied / "index.html").unlink()
    run_demo(copied, small_plan)
    after = stamps(copied, "run/**/*")
    assert {path.name for path in after if after[path] != before[path]} == {"best.onnx"}
    assert (copied / "predictions" / "onnx" / "slice_06_OUT.png").exists()
    assert (copied / "index.html").exists()
    steps = {s["name"]: s["reused"] for s in json.loads((copied / "results.json").read_text())["steps"]}
    assert steps == {"data": True, "train": True, "export": False, "predict": False, "time": False}


def test_an_export_of_other_weights_is_replaced(copied, monkeypatch):
    images = sorted((copied / "sample" / "images").glob("*.png"))[:1]
    checkpoint = copied / "run" / "best.pth"
    assert exported(checkpoint, "onnx", images, print).reused
    monkeypatch.setattr(importlib.metadata, "version", lambda name: "0.0.1")
    assert not exported(checkpoint, "onnx", images, print).reused
    monkeypatch.undo()
    shutil.copy(copied / "run" / "last.pth", checkpoint)
    assert not exported(checkpoint, "onnx", images, print).reused


def test_other_settings_need_a_decision(copied, small_plan):
    with pytest.raises(InputError, match=r"was trained with epochs 6: start anew with --force"):
        run_demo(copied, small_plan, epochs=7)
    assert (copied / "run" / "best.pth").exists()


def test_epochs_of_the_first_run_hold_for_the_next(copied, small_plan):
    plan = dataclasses.replace(small_plan, training=dataclasses.replace(small_plan.training, epochs=9))
    run_demo(copied, plan)
    assert json.loads((copied / "results.json").read_text())["training"]["epochs"] == 6


def test_low_scores_are_a_failure(copied, small_plan):
    with pytest.raises(TrainingError, match=r"Dice stayed too low with torch: disc 0\.\d+ \(at least 0.9999\)"):
        run_demo(copied, dataclasses.replace(small_plan, required={"disc": 0.9999}))


def test_disagreement_is_a_failure():
    agreement = Agreement(max_difference=0.5, pixels=1000, flipped=40, images=1)
    outcomes = {"torch": Outcome({}), "onnx": Outcome({}, agreement, TOLERANCES["fp32"])}
    with pytest.raises(AgreementError, match=r"onnx: largest difference 0.5, .*onnx: 96.0+% of the labels equal"):
        insist_on_agreement(outcomes)


class StopInEpoch(Reporter):
    """Sends ourselves Ctrl-C in the middle of an epoch."""

    def __init__(self, epoch):
        self.left = 6 * (epoch - 1) + 2  # 11 images in batches of 2

    def step(self, images, loss, learning_rate, dice=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


@pytest.mark.usefixtures("single_threaded")
def test_it_goes_on_after_an_interruption_and_without_coremltools(tmp_path, small_plan, demo, monkeypatch):
    with pytest.raises(TrainingError, match="interrupted in epoch 3"):
        run_demo(tmp_path / "demo", small_plan, reporter=StopInEpoch(3))
    assert not (tmp_path / "demo" / "index.html").exists()

    def without_coremltools(checkpoint, format, images, report):
        if format == "coreml":
            raise MissingExtraError("coremltools", "export", "Core ML export")
        return exported(checkpoint, format, images, report)

    monkeypatch.setattr(demo_module, "exported", without_coremltools)
    page = run_demo(tmp_path / "demo", small_plan).read_text()
    assert "not converted: Core ML export needs coremltools" in page
    found = json.loads((tmp_path / "demo" / "results.json").read_text())
    assert [row["epoch"] for row in found["training"]["loss"]] == [1, 2, 3, 4, 5, 6]
    straight = json.loads((demo / "results.json").read_text())
    assert found["training"]["loss"] == straight["training"]["loss"]  # as if nothing had happened


def test_a_run_without_a_whole_epoch_starts_anew(copied, small_plan, monkeypatch):
    (copied / "run" / "last.pth").unlink()
    started = []
    monkeypatch.setattr(demo_module, "train", lambda data, out, *rest: started.append(out.exists()))
    place = DemoFolder(copied)
    listener = SimpleNamespace(reporter=None, progress=None, say=print)
    demo_module._train(small_plan, place, place.sample / "images", place.sample / "masks", listener)
    assert started == [False]


def test_a_strangers_folder_is_left_alone(tmp_path, small_plan):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "thesis.txt").write_text("ten years")
    for force in (False, True):
        with pytest.raises(InputError, match="holds something else than a demo"):
            run_demo(tmp_path, small_plan, force=force)
    assert (tmp_path / "run" / "thesis.txt").read_text() == "ten years"
    (tmp_path / "file").write_text("")
    with pytest.raises(InputError, match="cannot be the demo's folder"):
        run_demo(tmp_path / "file", small_plan)


def test_force_removes_what_the_demo_made_and_nothing_else(copied):
    (copied / "notes.txt").write_text("mine")
    DemoFolder(copied).claim(force=True)
    assert sorted(path.name for path in copied.iterdir()) == [".unet-edge-demo", "notes.txt"]


def test_damaged_results_are_no_obstacle(copied):
    place = DemoFolder(copied)
    for text in ("{", "[]", '{"version": 99}'):
        place.results.write_text(text)
        assert place.previous() == {}


def test_the_digest_of_a_package(tmp_path):
    package = tmp_path / "a.mlpackage"
    (package / "Data").mkdir(parents=True)
    (package / "Data" / "x").write_text("1")
    (package / "y").write_text("2")
    first = sha256_of(package)
    shutil.move(package / "y", package / "z")
    assert sha256_of(package) != first
    shutil.move(package / "z", package / "y")
    assert sha256_of(package) == first


@pytest.mark.parametrize("step", by_hand(BRAIN), ids=lambda step: step["what"])
def test_the_commands_by_hand_exist(step):
    program, name, *words = shlex.split(step["command"])
    assert program == "unet-edge"
    context = click.Context(main)
    command = main.get_command(context, name)
    if isinstance(command, click.Group):
        command = command.get_command(context, words.pop(0))
    command.make_parser(click.Context(command)).parse_args(words)  # raises for an option that is not there


def test_the_plan_follows_the_formats():
    assert set(FORMATS) == {"onnx", "coreml"}
    assert BRAIN.required == {"grey matter": 0.85, "white matter": 0.80}
