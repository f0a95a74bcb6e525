"""Every piece of the training state counts: without it a resumed run is another run, or none."""

import dataclasses

import pytest
import torch

from killing import differences
from unet_edge.checkpoint import read_checkpoint, save_checkpoint
from unet_edge.training import state
from unet_edge.training.config import TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train
from unet_edge.training.trainer import Trainer
from unet_edge_runtime.errors import InputError, TrainingError

NETWORK = NetworkConfig(4, 1, True, scale=0.5)
CONFIG = TrainConfig(
    epochs=3, batch_size=3, precision="fp16", ema=0.9, optimizer="adamw", patience=1, early_stop=4, warmup=0.3,
    validations_per_epoch=2, save_steps=1, seed=3, norm_images=0,
)  # fmt: skip
STOP = 5  # steps: in the middle of an epoch, just after a save


class Stopped(BaseException):
    """Stands for a kill."""


class StopBefore(Reporter):
    def __init__(self, step):
        self.left = step

    def step(self, *unused):
        self.left -= 1
        if self.left == 0:
            raise Stopped


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A finished run, and one of the same kind that was stopped."""
    from tests.drawn import write_pairs

    folder = tmp_path_factory.mktemp("state")
    data = DataConfig(*write_pairs(folder / "data"), validation=15)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(RunFolder, "draw_curves", lambda self: None)
        train(data, folder / "whole", NETWORK, CONFIG, "cpu", trackers=())
        with pytest.raises(Stopped):
            train(data, folder / "stopped", NETWORK, CONFIG, "cpu", StopBefore(STOP + 1), trackers=())
    return folder / "whole", folder / "stopped"


@pytest.fixture
def stopped(runs, tmp_path, monkeypatch):
    """A copy of the stopped run."""
    import shutil

    monkeypatch.setattr(RunFolder, "draw_curves", lambda self: None)
    return shutil.copytree(runs[1], tmp_path / "run")


def change(run, change_state):
    """Write a run's last checkpoint with another state."""
    path = RunFolder(run).last
    checkpoint = read_checkpoint(path)
    change_state(checkpoint.state)
    save_checkpoint(path, checkpoint.build(), checkpoint.spec, checkpoint.state)


def test_with_all_pieces_it_is_the_same_run(runs, stopped):
    assert read_checkpoint(RunFolder(stopped).last).state["step"] == STOP
    resume(stopped, "cpu")
    assert differences(runs[0], stopped) == []


PIECES = {
    "epoch": lambda s: s.update(epoch=s["epoch"] - 1),
    "batch": lambda s: s.update(batch=s["batch"] - 1),
    "step": lambda s: s.update(step=s["step"] + 1),
    "loss_sum": lambda s: s.update(loss_sum=0.0),
    "records": lambda s: s.update(records=0),
    "best": lambda s: s["best"].update(dice=0.999),
    "since_best": lambda s: s.update(since_best=3),
    "raw_weights": lambda s: s["raw_weights"]["inc.double_conv.0.weight"].mul_(1.001),
    "optimizer": lambda s: s["optimizer"].update(state={}),
    "schedule": lambda s: s["schedule"].update(done=0),
    "plateau": lambda s: s["schedule"].update(factor=0.1),
    "waited": lambda s: s["schedule"].update(best=1.0, waited=1),
    "scaler": lambda s: s["engine"]["scaler"].update(scale=3.7),
    "overflows": lambda s: s["engine"].update(overflows=9),
    "rng": lambda s: s["rng"]["cpu"].copy_(torch.Generator().manual_seed(9).get_state()),
}


@pytest.mark.parametrize("piece", PIECES)
def test_each_piece_counts(runs, stopped, piece):
    change(stopped, PIECES[piece])
    resume(stopped, "cpu")
    assert differences(runs[0], stopped)


@pytest.mark.parametrize("piece", [field.name for field in dataclasses.fields(state.Progress)] + [
    "train_config", "processes", "optimizer", "schedule", "engine", "raw_weights", "rng",
])  # fmt: skip
def test_a_missing_piece_is_said(stopped, piece):
    change(stopped, lambda s: s.pop(piece))
    with pytest.raises(TrainingError, match=r"last\.pth: holds no training state of this version.*--load"):
        resume(stopped, "cpu")


@pytest.mark.parametrize(("piece", "value"), [("epoch", "one"), ("optimizer", 3), ("engine", {}), ("best", [])])
def test_a_damaged_piece_is_said(stopped, piece, value):
    change(stopped, lambda s: s.update({piece: value}))
    with pytest.raises(TrainingError, match="holds no training state of this version"):
        resume(stopped, "cpu")


def test_the_averaged_weights_are_the_checkpoints_own(stopped):
    checkpoint = read_checkpoint(RunFolder(stopped).last)
    raw = checkpoint.state["raw_weights"]
    assert raw.keys() == checkpoint.weights.keys()
    assert not torch.equal(raw["outc.conv.weight"], checkpoint.weights["outc.conv.weight"])


def test_without_averaging_the_weights_are_kept_once(runs, tmp_path, monkeypatch):
    monkeypatch.setattr(RunFolder, "draw_curves", lambda self: None)
    images = runs[0].parent / "data"
    config = dataclasses.replace(CONFIG, ema=0.0, epochs=1)
    train(DataConfig(images / "images", images / "masks"), tmp_path / "run", NETWORK, config, "cpu", trackers=())
    assert read_checkpoint(tmp_path / "run" / "last.pth").state["raw_weights"] is None


def test_what_changes_no_result_may_change(runs, stopped):
    resume(stopped, "cpu", changes={"workers": 1, "cache": "none", "save_steps": 2})
    found = [line for line in differences(runs[0], stopped) if "train_config" not in line]
    assert found == []
    with pytest.raises(InputError, match="loss cannot change"):
        resume(stopped, "cpu", changes={"loss": "ce"})


def test_another_number_of_processes_goes_on_at_the_same_image(runs, stopped):
    """As after an elastic restart with fewer machines."""
    change(stopped, lambda s: s.update(processes=2, batch=1, step=3, epoch=2))
    checkpoint = read_checkpoint(RunFolder(stopped).last)
    split = RunFolder(stopped).read_split()
    from unet_edge.data.split import Split

    config = TrainConfig.from_dict(checkpoint.state["train_config"])
    run, device = RunFolder(stopped), torch.device("cpu")
    trainer = Trainer(config, checkpoint.build(), checkpoint.spec, Split.from_dict(split), run, device)
    state.restore(trainer, checkpoint)
    assert (trainer.progress.epoch, trainer.progress.batch) == (2, 2)
    assert trainer.progress.step == len(trainer.batches) + 2
    assert trainer.schedule.steps == 2 * trainer.steps
