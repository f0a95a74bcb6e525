"""benchmarks/training.py and curves.py: trainings in turns, and what may be said of the numbers."""

import importlib
import io
import json
import sys
import time
from pathlib import Path

import pytest
from PIL import Image

from tests.drawn import write_pairs
from unet_edge.training.config import TrainConfig
from unet_edge_runtime.errors import InputError

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
OWN = ("training", "training_report", "training_worker", "curves", "milesial", "seed_equivalence", "peers")


@pytest.fixture
def load(monkeypatch):
    """A function name -> module of benchmarks or benchmarks/peers."""
    monkeypatch.syspath_prepend(BENCHMARKS / "peers")
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module
    for name in [name for name in sys.modules if name.partition(".")[0] in OWN]:
        del sys.modules[name]


def side(name, first, later, loss=1.0, reason=None, launches=5):
    """A side whose epochs take about so many seconds for each of their four images."""
    epochs = [
        [
            {"images": 4, "seconds": 4 * seconds * (1 + 0.002 * launch), "loss": loss, "memory_bytes": 1 << 30}
            for seconds in (first, later, later)
        ]
        for launch in range(launches)
    ]
    return {"name": name, "epochs": [] if reason else epochs, "notes": [], "reason": reason}


def setting(*sides):
    return {"width": 16, "scale": 0.25, "images": 4, "sides": list(sides)}


@pytest.fixture
def sides():
    return [
        side("milesial fp32", 1.0, 1.0),
        side("milesial amp", 0.8, 0.8, loss=1.01),
        side("ours fp32", 1.0, 0.5, loss=0.99),
        side("ours auto", 0.5, 0.2, loss=1.02),
    ]


def test_the_reading_follows_from_the_numbers(load, sides):
    sentences = load("training_report").reading(setting(*sides))
    fp32 = next(sentence for sentence in sentences if "ours fp32 trains" in sentence)
    first, later = fp32.split(" in the first epoch")
    assert "1.00×" in first
    assert later.startswith(" (cannot tell), 2.00×")
    assert "cannot tell" not in later.removeprefix(" (cannot tell)")
    fastest = sentences[-1]
    assert "the fastest against the fastest: ours auto trains" in fastest
    assert "as milesial amp" in fastest
    assert "4.00×" in fastest


def test_a_training_that_does_something_else_is_not_compared(load, sides):
    sides[3] = side("ours auto", 0.5, 0.2, loss=1.2)
    report = load("training_report")
    sentences = report.reading(setting(*sides))
    assert any("ours auto has another loss" in sentence for sentence in sentences)
    assert not any("ours auto trains" in sentence for sentence in sentences)
    lines = report._table(setting(*sides))
    (line,) = (line for line in lines if line.startswith("| ours auto"))
    assert "**another loss**" in line
    assert "×" not in line


def test_what_failed_is_said(load, sides):
    sides[2] = side("ours fp32", 1, 1, reason="out of memory")
    report = load("training_report")
    sentences = report.reading(setting(*sides))
    assert "ours fp32 failed: out of memory." in sentences[0]
    sides[0] = side("milesial fp32", 1, 1, reason="it crashed")
    assert "nothing is compared" in report.reading(setting(*sides))[-1]
    counts = {line.count("|") for line in report._table(setting(*sides)) if line.startswith("|")}
    assert counts == {9}


def test_only_the_steps_of_an_epoch_are_timed(load):
    answers = io.StringIO()
    turns = load("training_worker").Turns(io.StringIO('{"do": "epoch"}\n' * 2), answers, lambda: 5)
    for loss in (1.0, 3.0):
        with turns.epoch(1, 2, 4):
            time.sleep(0.01)
            turns.step(2, loss, 1e-5)
        time.sleep(0.2)  # a checkpoint is written
    turns.answer()
    ready, first, second = map(json.loads, answers.getvalue().splitlines())
    assert ready == {"notes": []}
    assert [answer["loss"] for answer in (first, second)] == [1.0, 3.0]
    for answer in (first, second):
        assert answer["images"] == 2
        assert answer["memory_bytes"] == 5
        assert 0.01 <= answer["seconds"] < 0.2


def test_a_training_ends_when_nobody_asks_any_more(load):
    turns = load("training_worker").Turns(io.StringIO(""), io.StringIO(), lambda: None)
    with pytest.raises(SystemExit), turns.epoch():
        pytest.fail("an epoch that nobody asked for")


def test_every_part_of_a_variant_changes_the_configuration(load):
    worker = load("training_worker")
    for part, changes in worker.PARTS.items():
        config = TrainConfig.from_recipe("seed", **worker.change(part))
        assert {key: getattr(config, key) for key in changes} == changes
    assert worker.change("auto+compile") == {"precision": "auto", "compile": True}


@pytest.mark.parametrize("text", ["", "16", "16@0.5", "x@0.5:2", "16@0:2", "16@2:2", "0@0.5:2", "16@0.5:0"])
def test_a_setting_that_is_none_is_one_line(load, text):
    with pytest.raises(InputError, match=r"setting|at least 1"):
        load("training").Setting.parse(text)


def test_bad_options_give_one_line(load, capsys, tmp_path):
    images, masks = map(str, write_pairs(tmp_path / "data", 2))
    common = ["--images", images, "--masks", masks, "--output", str(tmp_path / "T.md")]
    assert load("training").main([*common, "--settings", "4@1:3"]) == 1
    assert "2 images with masks, a setting asks for 3" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        load("training").main([*common, "--ours", "fp32+magic"])
    assert "'magic' is none of fp32" in capsys.readouterr().err
    assert not (tmp_path / "T.md").exists()


@pytest.mark.slow
def test_the_command_measures_both_trainings_in_turns(load, tmp_path):
    images, masks = map(str, write_pairs(tmp_path / "data", 6))
    files = ["--output", str(tmp_path / "T.md"), "--raw", str(tmp_path / "T.json")]
    effort = ["--settings", "4@1:4", "--launches", "1", "--rounds", "1", "--threads", "1"]
    sides = ["--ours", "fp32", "auto", "--milesial", "fp32"]
    assert load("training").main(["--images", images, "--masks", masks, *files, *effort, *sides]) == 0
    (found,) = json.loads((tmp_path / "T.json").read_text(encoding="utf-8"))["settings"]
    by_name = {side["name"]: side for side in found["sides"]}
    for name in ("milesial fp32", "ours fp32"):
        assert [[epoch["images"] for epoch in launch] for launch in by_name[name]["epochs"]] == [[4, 4]]
    losses = [by_name[name]["epochs"][0][0]["loss"] for name in ("milesial fp32", "ours fp32")]
    assert losses[0] == pytest.approx(losses[1], rel=0.1)
    assert by_name["ours auto"]["notes"][0].startswith("auto is ")
    text = (tmp_path / "T.md").read_text(encoding="utf-8")
    assert str(tmp_path) not in text
    assert "ours fp32 trains" in text


def test_a_side_that_fails_says_why_in_one_line_and_leaves_the_others(load, tmp_path):
    training = load("training")
    request = {"whose": "ours", "variant": "fp32", "checkpoint": "none.pth", "images": str(tmp_path / "none")}
    broken = training.Side(
        "ours fp32", {**request, "masks": "", "suffix": "", "scale": 1, "device": "cpu", "batch": 1, "epochs": 1}
    )
    training._launch([broken], 1, 1)
    assert "none" in broken.reason
    assert "\n" not in broken.reason
    assert "Traceback" not in broken.reason


@pytest.mark.slow
def test_curves_are_drawn_and_kept(load, tmp_path, capsys):
    images, masks = map(str, write_pairs(tmp_path / "data", 8))
    given = ["--images", images, "--masks", masks, "--validation", "25", "--scale", "1", "--base-channels", "4"]
    files = ["--runs", str(tmp_path), "--picture", str(tmp_path / "c.png"), "--output", str(tmp_path / "C.md")]
    more = ["--bilinear", "--epochs", "2", "--device", "cpu"]
    assert load("curves").main([*given, *files, *more]) == 0
    assert "training seed, seed 0" in capsys.readouterr().err
    text = (tmp_path / "C.md").read_text(encoding="utf-8")
    rows = [line.split(" | ") for line in text.splitlines() if line.startswith(("| seed", "| default"))]
    assert [len(row) for row in rows] == [6, 6]
    assert "(c.png)" in text
    assert str(tmp_path) not in text
    with Image.open(tmp_path / "c.png") as picture:
        assert picture.size[0] > 1000
    points = json.loads((tmp_path / "default-0.json").read_text(encoding="utf-8"))["points"]
    assert [epoch for epoch, _, _ in points] == [1.0, 2.0]
    assert 0 < points[0][1] < points[1][1]
    assert load("curves").main([*given, *files, *more]) == 0
    assert "training" not in capsys.readouterr().err
    assert load("curves").main([*given, *files, *more[:-4], "--epochs", "3", "--device", "cpu"]) == 1
    assert "other options" in capsys.readouterr().err
