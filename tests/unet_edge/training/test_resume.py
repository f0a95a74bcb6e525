"""Runs that were stopped, crashed or killed, and how they go on."""

import dataclasses
import subprocess
import sys
import time

import pytest
import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.cli.progress import ConsoleReporter
from unet_edge.training import trainer as trainer_module
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, resume, train
from unet_edge_runtime.errors import DatasetError, InputError, TrainingError

from .conftest import QUICK, SMALL, StopAfter, weights


@pytest.mark.parametrize("stop", [3, 5, 9])
def test_interrupted_and_resumed_equals_never_interrupted(tmp_path, pairs_folder, stop):
    data = DataConfig(*pairs_folder, validation=10)
    config = dataclasses.replace(QUICK, validations_per_epoch=2)
    whole = train(data, tmp_path / "whole", SMALL, config, "cpu")
    with pytest.raises(TrainingError, match=r"--resume .*cut"):
        train(data, tmp_path / "cut", SMALL, config, "cpu", StopAfter(stop))
    resumed = resume(tmp_path / "cut", "cpu")
    assert resumed == whole
    for name in ("last.pth", "best.pth"):
        a, b = weights(tmp_path / "whole" / name), weights(tmp_path / "cut" / name)
        assert all(torch.equal(a[key], b[key]) for key in a)
    metrics = [RunFolder(tmp_path / name).read_metrics() for name in ("whole", "cut")]
    for records in metrics:
        for record in records:
            for key in ("images_per_second", "memory_bytes"):
                record.pop(key, None)
    assert metrics[0] == metrics[1]


def test_killed_while_training_leaves_a_checkpoint_that_loads(tmp_path, pairs_folder):
    code = (
        "from unet_edge.training.start import *; from unet_edge.training.config import TrainConfig; "
        "from pathlib import Path; import sys; i, m, o = map(Path, sys.argv[1:]); "
        "n = NetworkConfig(4, 2, True, scale=1.0); "
        "train(DataConfig(i, m), o, n, TrainConfig(epochs=1000, batch_size=2), 'cpu')"
    )
    run = RunFolder(tmp_path / "run")
    process = subprocess.Popen([sys.executable, "-c", code, *map(str, pairs_folder), str(run.path)])
    try:
        deadline = time.monotonic() + 120
        while not run.last.exists() and time.monotonic() < deadline:
            time.sleep(0.05)
    finally:
        process.kill()
        process.wait()
    checkpoint = read_checkpoint(run.last)
    best = resume(run.path, "cpu", epochs=checkpoint.state["epoch"] + 1)
    assert best["dice"] is not None


def test_a_crash_in_the_first_epoch_can_be_resumed(tmp_path, pairs_folder, monkeypatch):
    def crash(self, looks):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "draw_overlays", crash)
        with pytest.raises(OSError, match="No space left"):
            train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    whole = train(DataConfig(*pairs_folder), tmp_path / "whole", SMALL, QUICK, "cpu")
    assert resume(tmp_path / "run", "cpu") == whole


def test_a_validation_that_fails_costs_nothing_but_itself(tmp_path, pairs_folder, monkeypatch):
    data, steps = DataConfig(*pairs_folder, validation=25), []

    def crash(trainer):
        raise MemoryError

    whole = train(data, tmp_path / "whole", SMALL, QUICK, "cpu")
    with monkeypatch.context() as patch:
        patch.setattr(trainer_module, "WORTH_SAVING", 0)
        patch.setattr(trainer_module, "score", crash)
        with pytest.raises(TrainingError, match="out of memory"):
            train(data, tmp_path / "run", SMALL, QUICK, "cpu")
    done = read_checkpoint(tmp_path / "run" / "last.pth").state["step"]
    monkeypatch.setattr(trainer_module.Engine, "step", counted(trainer_module.Engine.step, steps))
    assert resume(tmp_path / "run", "cpu") == whole
    assert done == 5
    assert len(steps) == 2 * done  # those of the other two epochs
    a, b = weights(tmp_path / "whole" / "last.pth"), weights(tmp_path / "run" / "last.pth")
    assert all(torch.equal(a[key], b[key]) for key in a)
    events = [[r["event"] for r in RunFolder(tmp_path / name).read_metrics()] for name in ("whole", "run")]
    assert events == [["train", "validation"] * 3] * 2


def counted(function, calls):
    return lambda *arguments: calls.append(1) or function(*arguments)


def test_more_epochs_start_a_new_course_of_the_learning_rate(tmp_path, pairs_folder):
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    resume(tmp_path / "run", "cpu", epochs=6)
    rates = [r["learning_rate"] for r in RunFolder(tmp_path / "run").read_metrics() if r["event"] == "train"]
    assert len(rates) == 6
    assert rates[0] > rates[1] > rates[2]
    assert rates[3] > rates[2]
    assert rates[3] > rates[4] > rates[5]
    assert rates[5] < QUICK.learning_rate / 10


def test_resume_says_what_is_missing(tmp_path, pairs_folder):
    with pytest.raises(InputError, match="holds no run that could be resumed"):
        resume(tmp_path)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    next(pairs_folder[0].iterdir()).unlink()
    with pytest.raises(DatasetError, match="no longer there"):
        resume(tmp_path / "run", epochs=2)


def test_a_resumed_run_says_where_it_is_and_tells_the_loss_of_the_whole_epoch(tmp_path, pairs_folder, capsys):
    data, config = DataConfig(*pairs_folder, validation=25), dataclasses.replace(QUICK, epochs=1)
    with pytest.raises(TrainingError, match="interrupted"):
        train(data, tmp_path / "run", SMALL, config, "cpu", StopAfter(3))
    resume(tmp_path / "run", "cpu", reporter=ConsoleReporter())
    said = capsys.readouterr().err
    assert f"{tmp_path / 'run'} goes on in epoch 1 of 1, after 3 steps" in said
    (loss,) = [r["loss"] for r in RunFolder(tmp_path / "run").read_metrics() if r["event"] == "train"]
    assert f"epoch 1/1: loss {loss:.4f}," in said
    resume(tmp_path / "run", "cpu", reporter=ConsoleReporter())
    assert f"{tmp_path / 'run'} is complete: --epochs 2 would train it for 1 more" in capsys.readouterr().err
