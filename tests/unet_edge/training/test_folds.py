"""Cross-validation: every image scored by a network that did not see it, and going on after an interruption."""

from __future__ import annotations

import dataclasses
import json
import shutil
import subprocess
import sys

import numpy as np
import pytest

from tests.drawn import write_pairs
from unet_edge.data.split import Split
from unet_edge.evaluation import evaluate
from unet_edge.training.config import TrainConfig
from unet_edge.training.folds import fold_table, train_folds
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter

NETWORK = NetworkConfig(8, 1, True, scale=1.0)
CONFIG = TrainConfig(epochs=2, batch_size=1, learning_rate=2e-2)
STEPS = 2 * 4  # of the first fold, which validates on three of seven


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return DataConfig(*write_pairs(tmp_path_factory.mktemp("folds"), count=7, size=(32, 40)))


def cross_validate(data, out, folds=3, config=CONFIG, **options):
    return train_folds(data, out, folds, network=NETWORK, config=config, device="cpu", trackers=(), **options)


@pytest.fixture(scope="module")
def three(data, tmp_path_factory):
    """A folder of three finished folds, and what they returned."""
    out = tmp_path_factory.mktemp("three") / "runs"
    return out, cross_validate(data, out)


def test_every_image_is_scored_once_by_a_network_that_did_not_see_it(three):
    out, summary = three
    pooled, seen = ConfusionMatrix(3), []
    for scores in summary["folds"]:
        run = RunFolder(out / scores["folder"])
        split = Split.from_dict(run.read_split())
        assert not {p.name for p in split.val} & {p.name for p in split.train}
        matrix = evaluate(Segmenter.open(run.best, device="cpu"), split.val)
        assert scores["confusion"] == matrix.counts.tolist()
        pooled.counts += matrix.counts
        seen += [pair.name for pair in split.val]
    assert sorted(seen) == [f"photo {number:02}" for number in range(7)]
    assert summary["pooled"]["dice"] == pooled.mean(pooled.dice, 0)
    assert summary["pooled"]["iou"] == pooled.mean(pooled.iou, 0)


def test_mean_and_deviation_are_over_the_folds(three):
    out, summary = three
    dice = [scores["dice"] for scores in summary["folds"]]
    assert len(set(dice)) == 3
    assert min(dice) > 0
    assert summary["mean"]["dice"] == pytest.approx(np.mean(dice))
    assert summary["deviation"]["dice"] == pytest.approx(np.std(dice, ddof=1))
    assert json.loads((out / "folds.json").read_text()) == summary


def test_the_table_has_a_line_a_fold_and_three_more(three):
    _, summary = three
    lines = fold_table(summary).splitlines()
    assert [line.split("  ")[0] for line in lines[1:]] == [
        "fold 1",
        "fold 2",
        "fold 3",
        "mean",
        "deviation",
        "all pixels",
    ]
    assert lines[1].split()[-1] == "3"
    assert lines[-1].split()[-1] == "7"
    assert f"{summary['mean']['dice']:.4f}" in lines[4]


class Crash(Reporter):
    """Breaks off at a step, counted over all folds."""

    def __init__(self, step):
        self.left = step

    def step(self, *arguments, **options):
        self.left -= 1
        if not self.left:
            raise RuntimeError("power cut")


def test_the_same_call_goes_on_where_it_was_broken_off(data, three, tmp_path):
    out, told = tmp_path / "runs", []
    with pytest.raises(RuntimeError, match="power cut"):
        cross_validate(data, out, reporter=Crash(STEPS + 6))
    finished = sha256_of(out / "fold1" / "best.pth")
    partial = json.loads((out / "folds.json").read_text())
    assert [scores["fold"] for scores in partial["folds"]] == [1]
    assert (out / "fold2" / "last.pth").exists()
    assert not (out / "fold3").exists()
    summary = cross_validate(data, out, say=told.append)
    assert sha256_of(out / "fold1" / "best.pth") == finished
    assert summary == three[1]
    assert [line.split(":")[0] for line in told if line.startswith("fold")] == [f"fold {i} of 3" for i in (1, 2, 3)]


def test_finished_folds_are_not_trained_again(data, three):
    out, summary = three
    assert cross_validate(data, out, reporter=Crash(1)) == summary
    assert cross_validate(data, out, config=dataclasses.replace(CONFIG, workers=1), reporter=Crash(1)) == summary


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ({"config": dataclasses.replace(CONFIG, learning_rate=1e-4)}, "learning rate"),
        ({"folds": 4}, "folds"),
    ],
)
def test_folds_of_other_options_are_not_mixed(data, three, change, named):
    with pytest.raises(InputError, match=f"made with another {named}"):
        cross_validate(data, three[0], **change)


def test_a_data_set_that_changes_between_folds_is_noticed(data, three, tmp_path):
    images, masks = write_pairs(tmp_path / "data", count=7, size=(32, 40))
    own = DataConfig(images, masks)
    with pytest.raises(RuntimeError, match="power cut"):
        cross_validate(own, tmp_path / "runs", reporter=Crash(STEPS + 1))
    (tmp_path / "runs" / "fold2" / "last.pth").unlink()
    shutil.copy(images / "photo 03.png", images / "new.png")
    shutil.copy(masks / "photo 03_mask.png", masks / "new_mask.png")
    with pytest.raises(InputError, match="the data set has changed between the folds"):
        cross_validate(own, tmp_path / "runs")


def test_more_folds_than_images_is_one_line(data, tmp_path):
    with pytest.raises(InputError, match=r"7 .* cannot make 8 folds"):
        cross_validate(data, tmp_path / "runs", folds=8)
    assert not (tmp_path / "runs").exists()


@pytest.mark.slow
def test_folds_in_two_processes(data, tmp_path):
    # Several runs in one pair of processes: whatever one leaves behind of its group hangs the next.
    where = ["--images", data.images, "--masks", data.masks, "--out", tmp_path / "runs", "--folds", 3, "--nproc", 2]
    how = ["--epochs", 1, "--base-channels", 4, "--depth", 1, "--scale", 1, "--device", "cpu", "--track", "none"]
    command = [sys.executable, "-m", "unet_edge", "train", *map(str, where), *map(str, how), "--json"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=180)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary == json.loads((tmp_path / "runs" / "folds.json").read_text())
    assert [scores["images"] for scores in summary["folds"]] == [3, 2, 2]
    assert np.sum([scores["confusion"] for scores in summary["folds"]]) == 7 * 32 * 40
