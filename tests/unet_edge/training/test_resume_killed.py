"""Processes that are really killed, at any moment, and the run that comes out."""

import os

import pytest

from killing import ForkingStarter, differences, train_killed
from unet_edge.checkpoint import read_checkpoint
from unet_edge.training.config import TrainConfig
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train

OPTIONS = [
    "--scale", 1, "--base-channels", 8, "--depth", 2, "--bilinear", "--device", "cpu", "--epochs", 4, "-b", 1,
    "--validations-per-epoch", 2, "--deterministic", "--save-every", 3, "--workers", 1, "--augment", "light",
    "--ema", 0.9, "--warmup", 0.2, "--precision", "fp16", "--optimizer", "adamw", "--track", "none", "--seed", 7,
]  # fmt: skip


class Killed(BaseException):
    """Stands for a kill inside this process."""


@pytest.mark.parametrize("kills", [3, pytest.param(20, marks=pytest.mark.slow)])
def test_killed_and_resumed_is_bit_for_bit_never_killed(tmp_path, pairs_folder, kills):
    images, masks = pairs_folder
    options = [*OPTIONS, *(["--epochs", 24] if kills > 3 else [])]
    base = ["train", "--images", images, "--masks", masks, *options]
    with ForkingStarter() as starter:
        starter.run([*base, "--out", tmp_path / "whole"])
        run = tmp_path / "killed"
        moments = train_killed(starter, [*base, "--out", run], run, kills, seed=kills, pause=0.1)
    assert len(moments) == kills
    assert differences(tmp_path / "whole", run) == []


def test_killed_at_each_of_its_writings(tmp_path, pairs_folder, monkeypatch):
    """Not a process, but every single place: before and after each file takes its name or gets a line."""
    data, network = DataConfig(*pairs_folder, validation=15), NetworkConfig(4, 1, True, scale=0.5)
    config = TrainConfig(
        epochs=2, batch_size=4, validations_per_epoch=2, save_steps=1, ema=0.9, learning_rate=3e-3, early_stop=3
    )
    monkeypatch.setattr(RunFolder, "draw_curves", lambda self: None)
    train(data, tmp_path / "whole", network, config, "cpu", trackers=())
    count = Countdown(monkeypatch)
    train(data, tmp_path / "again", network, config, "cpu", trackers=())
    assert differences(tmp_path / "whole", tmp_path / "again") == []
    total = count.calls
    assert total > 20
    for last in range(1, total + 1):
        run = tmp_path / f"run {last}"
        count.start(last)
        with pytest.raises(Killed):
            train(data, run, network, config, "cpu", trackers=())
        count.start(None)
        if RunFolder(run).last.exists():
            check_best(RunFolder(run))
            resume(run, "cpu")
        else:
            train(data, run, network, config, "cpu", trackers=())
        assert differences(tmp_path / "whole", run) == [], f"killed at writing {last} of {total}"


def check_best(run):
    """Without any further training the two checkpoints fit together: a best one of the future is not kept."""
    known = read_checkpoint(run.last).state
    run.settle(known["best_step"], known["records"])
    assert run.best.exists() == (known["best_step"] > 0)
    if run.best.exists():
        assert read_checkpoint(run.best).state["step"] == known["best_step"]
        assert read_checkpoint(run.best).state["best"] == known["best"]


class Countdown:
    """Raises `Killed` at the nth time that a file is about to be replaced, was replaced, or was appended to."""

    def __init__(self, monkeypatch) -> None:
        self.calls, self.last = 0, None
        replace, append = os.replace, RunFolder.append

        def counted_replace(source, target):
            self.count()
            replace(source, target)
            self.count()

        def counted_append(run, record):
            append(run, record)
            self.count()

        monkeypatch.setattr(os, "replace", counted_replace)
        monkeypatch.setattr(RunFolder, "append", counted_append)

    def start(self, last) -> None:
        self.calls, self.last = 0, last

    def count(self) -> None:
        self.calls += 1
        if self.calls == self.last:
            raise Killed
