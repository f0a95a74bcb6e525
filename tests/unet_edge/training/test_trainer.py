"""The loop: what it leaves, when it stops, saves and freezes, and the kinds of network and precision it trains."""

import dataclasses
import math

import pytest
import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.training import trainer as trainer_module
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, resume, train
from unet_edge_runtime.errors import TrainingError

from .conftest import QUICK, SMALL, StopAfter, weights


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


def test_optimiser_is_rmsprop_foreach_with_a_plateau_on_dice(tmp_path, pairs_folder):
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    state = read_checkpoint(tmp_path / "run" / "last.pth").state
    group = state["optimizer"]["param_groups"][0]
    assert group["foreach"] is True
    assert "alpha" in group
    assert state["schedule"]["best"] == pytest.approx(state["best"]["dice"])


def test_without_validation_the_last_is_the_best(tmp_path, pairs_folder):
    config = dataclasses.replace(QUICK, epochs=2)
    best = train(DataConfig(*pairs_folder, validation=0), tmp_path / "run", SMALL, config, "cpu")
    assert best == {"dice": None, "epoch": 2}
    a, b = weights(tmp_path / "run" / "best.pth"), weights(tmp_path / "run" / "last.pth")
    assert all(torch.equal(a[key], b[key]) for key in a)


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


def test_a_run_has_a_best_checkpoint_even_without_a_score(tmp_path, pairs_folder, monkeypatch):
    from unet_edge_runtime.scores import ConfusionMatrix

    monkeypatch.setattr(ConfusionMatrix, "mean", lambda *unused: None)
    train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu")
    assert (tmp_path / "run" / "best.pth").exists()


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
