import dataclasses
import json
import math
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch
from PIL import Image

from unet_edge.checkpoint import read_checkpoint
from unet_edge.training import trainer as trainer_module
from unet_edge.training.config import RECIPES, TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train
from unet_edge_runtime.errors import DatasetError, InputError, TrainingError

SMALL = NetworkConfig(4, 2, True, scale=1.0)
QUICK = TrainConfig(epochs=3, batch_size=2, seed=5)


class StopAfter(Reporter):
    """Sends ourselves Ctrl-C after a number of steps."""

    def __init__(self, steps: int) -> None:
        self.left = steps

    def step(self, images, loss, learning_rate, dice=None):
        self.left -= 1
        if self.left == 0:
            os.kill(os.getpid(), signal.SIGINT)


def weights(path: Path) -> dict[str, torch.Tensor]:
    return read_checkpoint(path).weights


def test_a_run_learns_and_leaves_everything(trained):
    run = RunFolder(trained)
    best = read_checkpoint(run.best)
    assert best.state["best"]["dice"] > 0.8
    assert best.spec.class_names == ["ground", "disc", "bar"]
    assert [info.value for info in best.spec.classes] == [0, 100, 255]
    assert best.spec.training_sizes == ((48, 64),)
    assert {"config.json", "split.json", "metrics.jsonl", "curves.png", "best.pth", "last.pth", "overlays"} <= {
        path.name for path in trained.iterdir()
    }
    assert list((trained / "overlays").glob("*.png"))
    records = run.read_metrics()
    assert [r["epoch"] for r in records if r["event"] == "train"] == list(range(1, 9))
    assert all(
        {"loss", "learning_rate", "overflows", "images_per_second", "memory_bytes"} <= r.keys() for r in records[::2]
    )
    validation = [r for r in records if r["event"] == "validation"]
    assert len(validation) == 8
    assert {c["name"] for c in validation[0]["classes"]} == {"ground", "disc", "bar"}
    needed = {"optimizer", "schedule", "engine", "rng", "epoch", "step", "train_config", "scores", "best"}
    assert needed <= best.state.keys()


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


def test_nan_stops_clearly_and_keeps_the_last_good_checkpoint(tmp_path, pairs_folder, monkeypatch):
    calls = {"count": 0}
    make_loss = trainer_module.make_loss

    def make_poisoned(*arguments):
        real = make_loss(*arguments)

        def poisoned(logits, labels):
            calls["count"] += 1
            return real(logits, labels) * (math.nan if calls["count"] > 7 else 1)

        return poisoned

    monkeypatch.setattr(trainer_module, "make_loss", make_poisoned)
    with pytest.raises(
        TrainingError, match=r"loss became nan in epoch 2, step 8.*best\.pth.*last\.pth.*--learning-rate"
    ):
        train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    assert all(torch.isfinite(value).all() for value in weights(tmp_path / "run" / "last.pth").values())


def test_checkpointing_trains_the_same_network(tmp_path, pairs_folder):
    data, config = DataConfig(*pairs_folder), dataclasses.replace(QUICK, epochs=1)
    train(data, tmp_path / "plain", SMALL, config, "cpu")
    train(data, tmp_path / "checkpointed", SMALL, dataclasses.replace(config, checkpointing="all"), "cpu")
    a, b = weights(tmp_path / "plain" / "last.pth"), weights(tmp_path / "checkpointed" / "last.pth")
    assert all(torch.allclose(a[key].float(), b[key].float(), rtol=1e-6, atol=1e-9) for key in a)


def test_mixed_precision_learns_on_the_cpu_too(tmp_path, pairs_folder):
    best = train(
        DataConfig(*pairs_folder),
        tmp_path / "run",
        SMALL,
        dataclasses.replace(QUICK, precision="bf16", epochs=2),
        "cpu",
    )
    assert best["dice"] is not None


def test_one_sigmoid_output(tmp_path, pairs_folder):
    from PIL import Image

    for path in pairs_folder[1].iterdir():
        Image.open(path).point(lambda v: 255 if v else 0).save(path)
    network = dataclasses.replace(SMALL, classes=1)
    train(DataConfig(*pairs_folder), tmp_path / "run", network, dataclasses.replace(QUICK, epochs=6), "cpu")
    checkpoint = read_checkpoint(tmp_path / "run" / "best.pth")
    assert checkpoint.config.classes == checkpoint.spec.outputs == 1
    assert checkpoint.state["best"]["dice"] > 0.5


def test_seed_recipe_is_the_seeds():
    config = TrainConfig.from_recipe("seed")
    assert (config.learning_rate, config.weight_decay, config.momentum) == (1e-5, 1e-8, 0.999)
    assert (config.gradient_clipping, config.patience, config.batch_size, config.epochs) == (1.0, 5, 1, 5)
    assert (config.decay, config.warmup, config.flip, config.loss) == ("none", 0.0, "none", "ce+pooled_dice")
    assert (config.optimizer, config.augment, config.ema) == ("rmsprop", "none", 0.0)
    assert set(RECIPES) >= {"seed", "default"}


def test_values_given_win_over_the_recipe():
    assert TrainConfig.from_recipe("seed", learning_rate=0.1, epochs=None).learning_rate == 0.1
    with pytest.raises(InputError, match=r"no recipe 'sead'; there are default, .*seed"):
        TrainConfig.from_recipe("sead")
    with pytest.raises(InputError, match="batch size must be above 0"):
        TrainConfig(batch_size=0)


def test_optimiser_is_rmsprop_foreach_with_a_plateau_on_dice(tmp_path, pairs_folder):
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    state = read_checkpoint(tmp_path / "run" / "last.pth").state
    group = state["optimizer"]["param_groups"][0]
    assert group["foreach"] is True
    assert "alpha" in group
    assert state["schedule"]["best"] == pytest.approx(state["best"]["dice"])


def test_a_folder_with_a_run_is_not_overwritten(trained, pairs_folder):
    before = (trained / "best.pth").read_bytes()
    with pytest.raises(InputError, match="already holds a run: continue it with --resume"):
        train(DataConfig(*pairs_folder), trained, SMALL, QUICK, "cpu")
    assert (trained / "best.pth").read_bytes() == before


def test_resume_says_what_is_missing(tmp_path, pairs_folder):
    with pytest.raises(InputError, match="holds no run that could be resumed"):
        resume(tmp_path)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    next(pairs_folder[0].iterdir()).unlink()
    with pytest.raises(DatasetError, match="no longer there"):
        resume(tmp_path / "run", epochs=2)


def test_validation_folders_with_an_unseen_value_are_refused(tmp_path, pairs_folder):
    import numpy as np
    from PIL import Image

    val_images, val_masks = tmp_path / "vi", tmp_path / "vm"
    val_images.mkdir()
    val_masks.mkdir()
    Image.new("RGB", (32, 32)).save(val_images / "a.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[0] = 77
    Image.fromarray(mask).save(val_masks / "a_mask.png")
    data = DataConfig(*pairs_folder, val_images=val_images, val_masks=val_masks)
    with pytest.raises(DatasetError, match=r"a_mask\.png.*77"):
        train(data, tmp_path / "run", SMALL, QUICK, "cpu")


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_exchanged_folders_are_named(tmp_path, pairs_folder, suffix):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path.rename(path.with_stem(path.stem.removesuffix("_mask") + suffix))
    hint = f"{images} holds photos and {masks} masks: exchange "
    with pytest.raises(DatasetError) as caught:
        train(DataConfig(masks, images), tmp_path / "run", SMALL, QUICK, "cpu")
    assert caught.value.problems[0] == f"{hint}--images and --masks"
    assert len(caught.value.problems) > 1
    data = DataConfig(images, masks, val_images=masks, val_masks=images)
    with pytest.raises(DatasetError) as caught:
        train(data, tmp_path / "run", SMALL, QUICK, "cpu")
    assert caught.value.problems[0] == f"{hint}--val-images and --val-masks"


@pytest.mark.parametrize("kind", ["photos", "anti-aliased", "incomplete"])
def test_wrong_masks_alone_are_no_exchanged_folders(tmp_path, pairs_folder, kind):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path = path.rename(path.with_stem(path.stem.removesuffix("_mask")))
        with Image.open(images / path.name if kind == "photos" else path) as picture:
            changed = picture.reduce(2).resize(picture.size, Image.Resampling.BICUBIC)
            (changed if kind == "anti-aliased" else picture).save(path)
    if kind == "incomplete":
        path.unlink()
    with pytest.raises(DatasetError) as caught:
        train(DataConfig(images, masks), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "exchange" not in str(caught.value)


def test_one_folder_cannot_be_exchanged(tmp_path, pairs_folder):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path.rename(images / path.name)
    (images / "photo 03.png").unlink()
    with pytest.raises(DatasetError, match=r"has no image photo 03") as caught:
        train(DataConfig(images, images), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "exchange" not in str(caught.value)


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


def test_wrong_classes_and_names_are_refused(tmp_path, pairs_folder):
    with pytest.raises(InputError, match=r"--classes 7, but the masks hold 3 values \(0, 100, 255\)"):
        train(DataConfig(*pairs_folder), tmp_path / "a", dataclasses.replace(SMALL, classes=7), QUICK, "cpu")
    with pytest.raises(InputError, match="2 class names for 3 mask values"):
        train(DataConfig(*pairs_folder, class_names=("a", "b")), tmp_path / "b", SMALL, QUICK, "cpu")


def test_split_and_config_are_saved_before_training(tmp_path, pairs_folder):
    with pytest.raises(TrainingError):
        train(DataConfig(*pairs_folder, validation=25), tmp_path / "run", SMALL, QUICK, "cpu", StopAfter(1))
    split = json.loads((tmp_path / "run" / "split.json").read_text())
    assert len(split["val"]) == 3
    assert len(split["train"]) == 9
    config = json.loads((tmp_path / "run" / "config.json").read_text())
    assert config["training"]["seed"] == 5
    assert config["versions"]["torch"] == torch.__version__ if "versions" in config else config["torch"]


def test_without_validation_the_last_is_the_best(tmp_path, pairs_folder):
    config = dataclasses.replace(QUICK, epochs=2)
    best = train(DataConfig(*pairs_folder, validation=0), tmp_path / "run", SMALL, config, "cpu")
    assert best == {"dice": None, "epoch": 2}
    a, b = weights(tmp_path / "run" / "best.pth"), weights(tmp_path / "run" / "last.pth")
    assert all(torch.equal(a[key], b[key]) for key in a)


def test_more_epochs_start_a_new_course_of_the_learning_rate(tmp_path, pairs_folder):
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    resume(tmp_path / "run", "cpu", epochs=6)
    rates = [r["learning_rate"] for r in RunFolder(tmp_path / "run").read_metrics() if r["event"] == "train"]
    assert len(rates) == 6
    assert rates[0] > rates[1] > rates[2]
    assert rates[3] > rates[2]
    assert rates[3] > rates[4] > rates[5]
    assert rates[5] < QUICK.learning_rate / 10


def test_the_seed_decides_the_split(tmp_path, pairs_folder):
    for seed in (1, 2):
        config = dataclasses.replace(QUICK, epochs=1, seed=seed)
        train(DataConfig(*pairs_folder, validation=50), tmp_path / str(seed), SMALL, config, "cpu")
    first, second = (RunFolder(tmp_path / str(seed)).read_split()["val"] for seed in (1, 2))
    assert first != second


def test_the_last_part_trains_on_the_running_statistics(tmp_path, pairs_folder, monkeypatch):
    monkeypatch.setattr(trainer_module, "NORM_BATCHES", 1)
    config = dataclasses.replace(QUICK, epochs=2, freeze_norm=0.5)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(config, epochs=2), "cpu")
    with pytest.raises(TrainingError, match="interrupted"):
        train(DataConfig(*pairs_folder), tmp_path / "half", SMALL, config, "cpu", StopAfter(6))
    half, whole = weights(tmp_path / "half" / "last.pth"), weights(tmp_path / "run" / "last.pth")
    statistics = [name for name in half if "running" in name]
    assert statistics
    assert all(torch.equal(half[name], whole[name]) for name in statistics)
    assert not torch.equal(half["outc.conv.weight"], whole["outc.conv.weight"])
    never = dataclasses.replace(config, freeze_norm=1.0)
    train(DataConfig(*pairs_folder), tmp_path / "never", SMALL, never, "cpu")
    assert not torch.equal(weights(tmp_path / "never" / "last.pth")[statistics[0]], whole[statistics[0]])


def test_a_crash_in_the_first_epoch_can_be_resumed(tmp_path, pairs_folder, monkeypatch):
    def crash(self, looks):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(RunFolder, "draw_overlays", crash)
        with pytest.raises(OSError, match="No space left"):
            train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    whole = train(DataConfig(*pairs_folder), tmp_path / "whole", SMALL, QUICK, "cpu")
    assert resume(tmp_path / "run", "cpu") == whole


def test_a_run_has_a_best_checkpoint_even_without_a_score(tmp_path, pairs_folder, monkeypatch):
    from unet_edge_runtime.scores import ConfusionMatrix

    monkeypatch.setattr(ConfusionMatrix, "mean", lambda *unused: None)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    assert (tmp_path / "run" / "best.pth").exists()


def test_out_of_memory_that_nothing_cures_is_said_in_one_line(tmp_path, pairs_folder, monkeypatch):
    def exhausted(*unused):
        raise torch.OutOfMemoryError("CUDA out of memory")

    monkeypatch.setattr(trainer_module, "make_loss", lambda *unused: exhausted)
    with pytest.raises(TrainingError, match=r"^out of memory.*--scale.*\(epoch 1, step 1; .*last\.pth") as caught:
        train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "\n" not in str(caught.value)


def test_a_single_pixel_at_the_bottom_is_refused_before_training(tmp_path, pairs_folder):
    network = dataclasses.replace(SMALL, depth=4, scale=0.25)
    with pytest.raises(InputError, match=r"16x16 is one pixel after 4 halvings.*smaller --depth"):
        train(DataConfig(*pairs_folder), tmp_path / "run", network, dataclasses.replace(QUICK, batch_size=1), "cpu")


def test_a_short_run_never_freezes_statistics_that_are_not_its_own_yet(tmp_path, pairs_folder):
    config = dataclasses.replace(QUICK, epochs=2, freeze_norm=0.0)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, config, "cpu")
    assert weights(tmp_path / "run" / "last.pth")["inc.double_conv.1.num_batches_tracked"] == 12


def test_a_run_without_progress_stops_early_and_stays_stopped(tmp_path, pairs_folder):
    config = dataclasses.replace(QUICK, epochs=9, early_stop=2, learning_rate=1e-12, optimizer="sgd", freeze_norm=1.0)
    said: list[str] = []
    reporter = Reporter()
    reporter.note = said.append
    data = DataConfig(*pairs_folder, validation=25)
    network = dataclasses.replace(SMALL, load=None)
    best = train(data, tmp_path / "run", network, config, "cpu", reporter)
    records = [r for r in RunFolder(tmp_path / "run").read_metrics() if r["event"] == "validation"]
    assert len(records) == best["epoch"] + 2 < 9
    assert max(r["dice"] for r in records) == best["dice"]
    assert any("stopped early: no better Dice in 2 validations" in line for line in said)
    before = (tmp_path / "run" / "last.pth").read_bytes()
    assert resume(tmp_path / "run", "cpu") == best
    assert (tmp_path / "run" / "last.pth").read_bytes() == before
    resume(tmp_path / "run", "cpu", epochs=10)
    assert len(RunFolder(tmp_path / "run").read_metrics()) > 2 * len(records)


def test_balanced_class_weights_come_from_the_masks_and_survive_a_resume(tmp_path, pairs_folder):
    from unet_edge.losses import balanced_weights
    from unet_edge.training.setup import gather

    data = DataConfig(*pairs_folder)
    config = dataclasses.replace(QUICK, epochs=1, class_weights="balanced")
    train(data, tmp_path / "run", SMALL, config, "cpu")
    _, scan = gather(data, 0, None)
    expected = balanced_weights([scan.counts[value] for value in (0, 100, 255)])
    saved = read_checkpoint(tmp_path / "run" / "last.pth").state["train_config"]["class_weights"]
    assert tuple(map(float, saved.split(","))) == expected
    assert len(set(expected)) == 3
    train(data, tmp_path / "plain", SMALL, dataclasses.replace(config, class_weights="none"), "cpu")
    losses = [RunFolder(tmp_path / name).read_metrics()[0]["loss"] for name in ("run", "plain")]
    assert losses[0] != losses[1]
    with pytest.raises(InputError, match="2 class weights for 3 mask values: give one a class"):
        train(data, tmp_path / "other", SMALL, dataclasses.replace(config, class_weights="1,2"), "cpu")
    assert not (tmp_path / "other").exists()


def test_what_is_hardly_meant_is_said(tmp_path, pairs_folder):
    said: list[str] = []
    images, masks = pairs_folder
    data = DataConfig(images, masks, val_images=images, val_masks=masks, ignore=77)
    train(data, tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu", say=said.append)
    assert said[0] == "warning: no mask holds 77, the value to ignore: check --ignore"
    assert said[1].startswith("warning: 12 of 12 validation images train as well (")
    said.clear()
    train(
        DataConfig(images, masks, ignore=100), tmp_path / "b", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu",
        say=said.append,
    )  # fmt: skip
    assert not [line for line in said if "warning" in line]


def test_deterministic_refuses_what_is_not_and_leaves_no_trace(tmp_path, pairs_folder):
    strict: list[bool] = []

    class Look(Reporter):
        def step(self, *unused):
            strict.append(torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic)

    for wanted in (True, False):
        config = dataclasses.replace(QUICK, epochs=1, deterministic=wanted)
        train(DataConfig(*pairs_folder), tmp_path / str(wanted), SMALL, config, "cpu", Look())
    assert strict == [True] * 6 + [False] * 6
    assert not torch.are_deterministic_algorithms_enabled()


def test_saving_by_the_clock(tmp_path, pairs_folder, monkeypatch):
    saved: list[int] = []
    real = trainer_module.Trainer.save_last

    def save(self):
        saved.append(self.progress.step)
        real(self)

    monkeypatch.setattr(trainer_module.Trainer, "save_last", save)
    now = {"time": 0.0}

    class Clock(Reporter):
        def step(self, *unused):
            now["time"] += 20.0

    monkeypatch.setattr(trainer_module.time, "monotonic", lambda: now["time"])
    config = dataclasses.replace(QUICK, epochs=1, batch_size=1, save_minutes=1.0)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, config, "cpu", Clock(), trackers=())
    assert saved == [0, 3, 6, 9, 11]


def test_an_operation_without_a_deterministic_way_is_said_in_one_line(tmp_path, pairs_folder, monkeypatch):
    def nll(logits, labels):
        # A real one of torch, found on the CPU too.
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
        return logits.sum()

    monkeypatch.setattr(trainer_module, "make_loss", lambda *unused: nll)
    config = dataclasses.replace(QUICK, deterministic=True)
    with pytest.raises(TrainingError, match=r"^put_ has no deterministic way on cpu: leave --deterministic out"):
        train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, config, "cpu")
