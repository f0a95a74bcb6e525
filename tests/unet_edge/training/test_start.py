"""The folder of a new run, and the checkpoint that one may start from."""

import json

import pytest
import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.training import start
from unet_edge.training.config import TrainConfig
from unet_edge.training.distributed import World
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train
from unet_edge_runtime.errors import InputError, TrainingError

from .conftest import CPU, QUICK, SMALL, StopAfter, weights


def test_a_folder_with_a_run_is_not_overwritten(trained, pairs_folder):
    before = (trained / "best.pth").read_bytes()
    with pytest.raises(InputError, match="already holds a run: continue it with --resume"):
        train(DataConfig(*pairs_folder), trained, SMALL, QUICK, "cpu")
    assert (trained / "best.pth").read_bytes() == before


def test_split_and_config_are_saved_before_training(tmp_path, pairs_folder):
    with pytest.raises(TrainingError):
        train(DataConfig(*pairs_folder, validation=25), tmp_path / "run", SMALL, QUICK, "cpu", StopAfter(1))
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(split["val"]) == 3
    assert len(split["train"]) == 9
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["seed"] == 5
    assert config["versions"]["torch"] == torch.__version__ if "versions" in config else config["torch"]


def test_load_starts_from_a_checkpoint_and_renews_only_a_head_that_does_not_fit(tmp_path, trained, pairs_folder):
    said: list[str] = []
    network = NetworkConfig(64, 4, load=trained / "best.pth", scale=1.0)
    config = TrainConfig(epochs=1, batch_size=12, learning_rate=1e-12, momentum=0.0)
    train(DataConfig(*pairs_folder), tmp_path / "same", network, config, "cpu", say=said.append)
    assert read_checkpoint(tmp_path / "same" / "last.pth").config == read_checkpoint(trained / "best.pth").config
    a, b = weights(trained / "best.pth"), weights(tmp_path / "same" / "last.pth")
    assert torch.allclose(a["inc.double_conv.0.weight"], b["inc.double_conv.0.weight"], atol=1e-6)
    assert torch.allclose(a["outc.conv.weight"], b["outc.conv.weight"], atol=1e-6)
    train(DataConfig(*pairs_folder, ignore=100), tmp_path / "other", network, config, "cpu", say=said.append)
    assert weights(tmp_path / "other" / "last.pth")["outc.conv.weight"].shape[0] == 2
    assert any("last layer starts anew" in line for line in said)


def test_it_says_which_class_the_means_leave_out(tmp_path, pairs_folder):
    said: list[str] = []
    config = TrainConfig(epochs=1, batch_size=12)
    names = ("ground", "disc", "bar")
    train(DataConfig(*pairs_folder, class_names=names), tmp_path / "a", SMALL, config, "cpu", say=said.append)
    assert any("3 classes (means leave out ground);" in line for line in said)
    said.clear()
    data = DataConfig(*pairs_folder, class_names=names, has_background=False)
    train(data, tmp_path / "b", SMALL, config, "cpu", say=said.append)
    assert any("3 classes;" in line for line in said)


@pytest.mark.parametrize(("crop", "warned"), [((64, 64), True), ((48, 80), True), ((48, 64), False)])
def test_a_crop_larger_than_every_image_is_said(tmp_path, pairs_folder, crop, warned):
    said: list[str] = []
    config = TrainConfig(epochs=1, batch_size=12, crop=crop)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, config, "cpu", say=said.append)
    assert (
        any(f"at most 48x64 after --scale 1, less than --crop {crop[0]}x{crop[1]}" in line for line in said) == warned
    )


def test_a_folder_that_only_one_machine_sees_is_named(tmp_path, monkeypatch):
    """As when the others have a folder of the same name on disks of their own."""
    monkeypatch.setattr(start, "current", lambda: World(1, 2))
    for name, answer in {"device": CPU, "join": World(), "from_writer": True, "any": True}.items():
        monkeypatch.setattr(World, name, lambda *unused, answer=answer: answer)
    with pytest.raises(InputError, match="is not on every machine: put the run's folder on a disk that all of them"):
        resume(tmp_path / "run", "cpu")
