"""What is typed after `unet-edge train` reaches the training, or is refused."""

import dataclasses
import os
import subprocess
import sys

import pytest
from click.testing import CliRunner

from unet_edge.cli import main
from unet_edge.cli.train import WITH_RESUME, command
from unet_edge.training import folds, start
from unet_edge.training.config import TrainConfig

REACHES = [
    (["--epochs", 3], {"epochs": 3}),
    (["--batch-size", 4, "--accumulate", 2], {"batch_size": 4, "accumulate": 2}),
    (["--optimizer", "adamw"], {"optimizer": "adamw"}),
    (["--learning-rate", 0.5], {"learning_rate": 0.5}),
    (["--weight-decay", 0.25], {"weight_decay": 0.25}),
    (["--momentum", 0.5], {"momentum": 0.5}),
    (["--gradient-clipping", 2], {"gradient_clipping": 2.0}),
    (["--warmup", 0.5], {"warmup": 0.5}),
    (["--decay", "poly"], {"decay": "poly"}),
    (["--patience", 9], {"patience": 9}),
    (["--early-stop", 7], {"early_stop": 7}),
    (["--freeze-norm", 0.75], {"freeze_norm": 0.75}),
    (["--norm-images", 16], {"norm_images": 16}),
    (["--validations-per-epoch", 3], {"validations_per_epoch": 3}),
    (["--loss", "ce+0.5*lovasz"], {"loss": "ce+0.5*lovasz"}),
    (["--class-weights", "1,2,0.5"], {"class_weights": "1,2,0.5"}),
    (["--augment", "strong", "--flip", "both"], {"augment": "strong", "flip": "both"}),
    (["--crop", "32x48"], {"crop": (32, 48)}),
    (["--ema", 0.99], {"ema": 0.99}),
    (["--amp"], {"precision": "auto"}),
    (["--no-amp"], {"precision": "fp32"}),
    (["--precision", "bf16"], {"precision": "bf16"}),
    (["--checkpointing", "auto"], {"checkpointing": "auto"}),
    (["--compile", "--sync-norm", "--deterministic"], {"compile": True, "sync_norm": True, "deterministic": True}),
    (["--save-every", 50], {"save_steps": 50, "save_minutes": 0.0}),
    (["--save-every", "10m"], {"save_steps": 0, "save_minutes": 10.0}),
    (["--seed", 4], {"seed": 4}),
    (["--workers", 2, "--cache", "disk", "--fast-decode"], {"workers": 2, "cache": "disk", "fast_decode": True}),
]


def run(*arguments: object):
    return CliRunner().invoke(main, ["train", *map(str, arguments)], prog_name="unet-edge")


@pytest.fixture
def called(monkeypatch):
    """What `train` or `resume` was called with."""
    found = {}

    def train(data, out, **others):
        found.update(data=data, out=out, **others)
        return {"dice": 0.5, "epoch": 1}

    def resume(run, device, epochs, reporter, trackers, changes):
        found.update(run=run, device=device, epochs=epochs, trackers=trackers, changes=changes)
        return {"dice": 0.5, "epoch": 1}

    monkeypatch.setattr(start, "train", train)
    monkeypatch.setattr(start, "resume", resume)
    return found


@pytest.mark.parametrize(("typed", "values"), REACHES, ids=[" ".join(map(str, typed)) for typed, _ in REACHES])
def test_every_option_reaches_the_configuration(called, tmp_path, typed, values):
    base = ["--images", tmp_path, "--masks", tmp_path, "-o", tmp_path / "run", "--device", "cpu", "--recipe", "seed"]
    result = run(*base, *typed)
    assert result.exit_code == 0, result.output
    seed = TrainConfig.from_recipe("seed")
    assert called["config"] == dataclasses.replace(seed, **values)
    assert called["config"] != seed or typed == ["--no-amp"]


def test_no_value_of_the_configuration_is_out_of_reach():
    reached = {name for _, values in REACHES for name in values}
    assert reached | {"recipe"} == {field.name for field in dataclasses.fields(TrainConfig)}


def test_options_of_data_and_network_reach_them(called, tmp_path):
    (tmp_path / "list.txt").write_text("a\n")
    result = run(
        "--images", tmp_path, "--masks", tmp_path, "-o", tmp_path / "run", "--mask-suffix", "_m", "--val-list",
        tmp_path / "list.txt", "-v", 20, "--group-by", "a", "--fraction", 0.5, "--ignore", 255, "--class-names", "a, b",
        "--no-background", "--max-classes", 9, "--folds", 5, "--fold", 2, "-c", 1, "-s", 0.25, "--base-channels", 8,
        "--depth", 3, "--bilinear", "--track", "wandb", "--track", "tensorboard", "--device", "cpu",
    )  # fmt: skip
    assert result.exit_code == 0, result.output
    assert called["data"] == start.DataConfig(
        tmp_path, tmp_path, "_m", None, None, tmp_path / "list.txt", 20.0, "a", 0.5, 255, ("a", "b"), False, 9, 5, 2
    )
    assert called["network"] == start.NetworkConfig(8, 3, True, 1, 0.25, None)
    assert called["trackers"] == ("wandb", "tensorboard")


def test_folds_without_a_fold_are_trained_in_turn(monkeypatch, tmp_path):
    asked = {}

    def train_folds(data, out, count, **others):
        asked.update(data=data, out=out, count=count, **others)
        scores = {"dice": 0.5, "iou": 0.4, "pixel_error": 0.1}
        return {"folds": [{"fold": 1, "images": 3, **scores}], "mean": scores, "deviation": scores, "pooled": scores}

    monkeypatch.setattr(folds, "train_folds", train_folds)
    result = run("--images", tmp_path, "--masks", tmp_path, "-o", tmp_path / "x", "--folds", 3, "--device", "cpu")
    assert result.exit_code == 0, result.output
    assert "fold 1" in result.stdout
    assert (asked["count"], asked["out"], asked["data"].fold) == (3, tmp_path / "x", None)


def test_tensorboard_is_the_default_tracker(called, tmp_path):
    run("--images", tmp_path, "--masks", tmp_path, "-o", tmp_path / "run", "--device", "cpu")
    assert called["trackers"] == ("tensorboard",)


@pytest.mark.parametrize(("typed", "cache"), [([], "disk"), (["--cache", "memory"], "memory")])
def test_several_processes_share_a_cache_unless_told_otherwise(called, tmp_path, monkeypatch, typed, cache):
    for name, value in (("RANK", "0"), ("WORLD_SIZE", "2"), ("LOCAL_RANK", "0")):
        monkeypatch.setenv(name, value)
    result = run("--images", tmp_path, "--masks", tmp_path, "-o", tmp_path / "run", "--device", "cpu", *typed)
    assert result.exit_code == 0, result.output
    assert called["config"].cache == cache


def test_resume_takes_what_changes_no_result(called, tmp_path):
    (tmp_path / "last.pth").touch()
    result = run(
        "--resume", tmp_path, "-e", 9, "--workers", 3, "--cache", "none", "--save-every", "2m", "--track", "none"
    )
    assert result.exit_code == 0, result.output
    assert called["epochs"] == 9
    assert called["changes"] == {"workers": 3, "cache": "none", "save_steps": 0, "save_minutes": 2.0}
    assert called["trackers"] == ("none",)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        (["--resume", ".", "--loss", "ce"], "--loss cannot change: start a new run"),
        (["--resume", ".", "--deterministic"], "--deterministic cannot change"),
        (["--resume", ".", "--out", "x"], "leave --images, --masks and --out out"),
        (["--images", "."], "--images, --masks and --out are needed"),
        (["--images", ".", "--masks", ".", "-o", "x", "--fold", 1], "--fold says which of --folds K validates"),
        (["--images", ".", "--masks", ".", "-o", "x", "--amp", "--precision", "fp16"], "give one of them"),
        (["--loss", "dise"], "'dise' is no term"),
        (["--class-weights", "heavy"], "must be none, balanced or numbers above 0"),
        (["--save-every", "often"], "such as 50, or of minutes, such as 10m"),
        (["--crop", "32"], "is not HEIGHTxWIDTH"),
    ],
)
def test_what_cannot_be_is_a_usage_error(typed, message):
    result = run(*typed)
    assert result.exit_code == 2
    assert message in " ".join(result.output.split())


def test_help_has_sections_and_explains_every_option():
    text = run("--help").output
    for title in ("Data", "Network", "Recipe", "Speed and memory", "Several processes", "Tracking", "Output"):
        assert f"\n{title}:\n" in text
    for parameter in command.params:
        assert parameter.help, parameter.name
        assert parameter.opts[0] in text


def test_help_tells_the_defaults_and_what_goes_with_resume():
    told = {parameter.opts[0]: parameter.help for parameter in command.params}
    defaults = {"--epochs": "10", "--loss": "ce+dice", "--ema": "0", "--flip": "horizontal", "--precision": "fp32"}
    for option, default in defaults.items():
        assert told[option].endswith(f"  [default: {default}]")
    beside = WITH_RESUME - {"resume_from"}
    assert all(parameter.opts[0] in told["--resume"] for parameter in command.params if parameter.name in beside)


def test_what_is_typed_in_small_letters_is_shown_so():
    text = run("--help").output
    assert "--class-weights none|balanced|W,W,..." in text
    assert "--crop HxW" in text


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP libraries tell their settings in other words")
@pytest.mark.parametrize(("given", "used"), [({}, "'0'"), ({"OMP_WAIT_POLICY": "ACTIVE"}, "'300")])
def test_waiting_threads_leave_the_cores_to_others(given, used, tmp_path, monkeypatch):
    monkeypatch.delenv("OMP_WAIT_POLICY", raising=False)
    environment = {**os.environ, "OMP_DISPLAY_ENV": "VERBOSE", **given}
    command = [sys.executable, "-m", "unet_edge", "train", "--images", ".", "--masks", ".", "--out", "run"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert f"GOMP_SPINCOUNT = {used}" in done.stderr


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--images", ".", "--masks", ".", "--out", "run"], "run already holds a run: continue it with --resume run"),
        (["--resume", "nowhere"], "nowhere holds no run that could be resumed"),
    ],
)
def test_a_wrong_run_folder_is_said_before_anything_is_loaded(words, message, tmp_path):
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / "last.pth").write_bytes(b"")
    (tmp_path / "nowhere").mkdir()
    code = "import sys; from unet_edge.cli import main\ntry: main()\nfinally: print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code, "train", *words], cwd=tmp_path, capture_output=True, text=True)
    assert message in done.stderr
    assert done.stdout == "False\n"
