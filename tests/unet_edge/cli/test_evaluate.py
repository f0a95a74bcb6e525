"""`unet-edge evaluate`: what it prints and writes, on every backend."""

from __future__ import annotations

import csv
import json
import os
import subprocess
import sys

import numpy as np
import pytest
import torch
from click.testing import CliRunner
from PIL import Image

from unet_edge.cli import main
from unet_edge.cli.evaluate import _own_part
from unet_edge.training.distributed import World


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture
def where(trained):
    return "--images", trained.parent / "data" / "images", "--masks", trained.parent / "data" / "masks"


@pytest.fixture
def two_classes(pairs_folder, tmp_path):
    """Options that name the drawn pairs with two classes."""
    (tmp_path / "two").mkdir()
    for path in pairs_folder[1].iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(tmp_path / "two" / path.name)
    return "--images", pairs_folder[0], "--masks", tmp_path / "two"


def rows(path):
    with path.open(encoding="utf-8", newline="") as stream:
        return list(csv.DictReader(stream))


def test_pooled_score_mean_over_images_and_the_worst_images_are_shown(trained, where):
    shown = run(trained / "best.pth", *where)
    assert shown.exit_code == 0, shown.output
    scores = json.loads(run(trained / "best.pth", *where, "--json").stdout)
    each = scores["mean_over_images"]
    assert f"over all pixels:   Dice {scores['dice']:.4f}, IoU {scores['iou']:.4f}" in shown.stdout
    assert f"mean over images:  Dice {each['dice']:.4f}, IoU {each['iou']:.4f}\n" in shown.stdout
    assert f"pixel error {scores['pixel_error']:.4f}" in shown.stdout
    worst = scores["worst_images"]
    assert f"lowest Dice: {worst[0]['image']} {worst[0]['dice']:.4f}, " in shown.stdout
    assert [w["dice"] for w in worst] == sorted(w["dice"] for w in worst)


def test_csv_files_hold_every_image_and_every_class(trained, where, tmp_path):
    files = "--per-image", tmp_path / "new" / "images.csv", "--csv", tmp_path / "classes.csv"
    scores = json.loads(run(trained / "best.pth", *where, *files, "--json").stdout)
    images, classes = rows(tmp_path / "new" / "images.csv"), rows(tmp_path / "classes.csv")
    assert [row["image"] for row in images] == [f"photo {number:02}" for number in range(12)]
    assert scores["mean_over_images"]["dice"] == pytest.approx(np.mean([float(row["dice"]) for row in images]))
    assert [row["class"] for row in classes] == ["ground", "disc", "bar"]
    assert [float(row["iou"]) for row in classes] == [c["iou"] for c in scores["classes"]]
    assert sum(int(row["pixels"]) for row in classes) == sum(int(row["pixels"]) for row in images) == 12 * 48 * 64


def test_a_file_that_cannot_be_written_is_one_line(trained, where, tmp_path):
    (tmp_path / "file").touch()
    result = run(trained / "best.pth", *where, "--per-image", tmp_path / "file" / "images.csv")
    assert result.exit_code == 1
    assert "cannot write" in result.output
    assert "Traceback" not in result.output


def test_flips_and_batch(trained, where):
    plain, batched, flipped = (
        json.loads(run(trained / "best.pth", *where, "--json", *more).stdout)
        for more in ([], ["--batch", 5], ["--flips", "horizontal"])
    )
    assert batched == plain
    assert flipped["flips"] == "horizontal"
    assert flipped["dice"] != plain["dice"]


def test_other_backends_score_the_same_with_flips_too(small_checkpoint, small_onnx, two_classes):
    for flips in ("none", "both"):
        ours, theirs = (
            json.loads(run(model, *two_classes, "--flips", flips, "--json").stdout)
            for model in (small_checkpoint, small_onnx)
        )
        assert theirs["backend"] == "onnx"
        assert theirs["dice"] == pytest.approx(ours["dice"], abs=1e-4)
    refused = run(small_onnx, *two_classes, "--batch", 4)
    assert refused.exit_code == 2
    assert "--batch is for torch" in refused.output


def in_processes(launcher, *arguments):
    """The exit code of real processes, and what they print."""
    command = [sys.executable, "-m", *launcher, "evaluate", *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=240)
    return done.returncode, done.stdout, done.stderr


def csv_files(folder):
    return "--per-image", folder / "images.csv", "--csv", folder / "classes.csv"


@pytest.mark.parametrize(
    "launcher",
    [("unet_edge",), ("torch.distributed.run", "--standalone", "--nproc-per-node", "2", "-m", "unet_edge")],
    ids=["nproc", "torchrun"],
)
def test_two_processes_print_and_write_what_one_does(trained, where, tmp_path, launcher):
    one, two = tmp_path / "one", tmp_path / "two"
    alone = run(trained / "best.pth", *where, *csv_files(one), "--json")
    processes = ["--nproc", 2] if launcher == ("unet_edge",) else []
    # What follows -- stays the model, whatever the processes are told besides.
    code, out, error = in_processes(launcher, *where, *csv_files(two), "--json", *processes, "--", trained / "best.pth")
    assert (code, out) == (0, alone.stdout), error
    assert launcher != ("unet_edge",) or error == ""
    for name in ("images.csv", "classes.csv"):
        assert (two / name).read_bytes() == (one / name).read_bytes()
    assert len(rows(two / "images.csv")) == 12


def test_more_processes_than_images_and_another_backend(small_onnx, two_classes, tmp_path):
    (tmp_path / "names.txt").write_text("photo 07\nphoto 02\n")
    options = [small_onnx, *two_classes, "--list", tmp_path / "names.txt"]
    alone = run(*options)
    assert "on 2 images (onnx)" in alone.stdout
    code, out, error = in_processes(["unet_edge"], *options, "--nproc", 3, *csv_files(tmp_path))
    assert (code, out, error) == (0, alone.stdout, "")
    assert [row["image"] for row in rows(tmp_path / "images.csv")] == ["photo 02", "photo 07"]


def test_a_bad_image_in_one_process_is_one_line_and_nothing_is_written(small_onnx, two_classes, tmp_path):
    """The last image is the second process's; the first one waits for it."""
    (two_classes[1] / "photo 11.png").write_bytes((two_classes[1] / "photo 11.png").read_bytes()[:300])
    options = [small_onnx, *two_classes, *csv_files(tmp_path)]
    alone = run(*options)
    assert "photo 11.png" in alone.stderr
    assert in_processes(["unet_edge"], *options, "--nproc", 2) == (1, "", alone.stderr)
    assert not list(tmp_path.glob("*.csv"))


def test_one_process_with_onnx_never_imports_torch(small_onnx, two_classes):
    arguments = ["evaluate", *map(str, (small_onnx, *two_classes))]
    code = f"""
import sys
from unet_edge.cli import main
main({arguments!r}, standalone_mode=False)
sys.exit("torch" in sys.modules)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_what_cannot_be_scored_is_told_before_a_process_starts(small_onnx, where):
    assert run(small_onnx, *where[:2], "--nproc", 2).exit_code == 2


def test_processes_share_cores_and_gpus(small_onnx, small_checkpoint, monkeypatch):
    taken = []
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "set_device", taken.append)
    second = World(1, 2, 1)
    assert _own_part(second, small_onnx, None, None) == {"threads": torch.get_num_threads()}
    assert _own_part(second, small_checkpoint, None, "cpu") == {}
    assert taken == []
    assert _own_part(second, small_checkpoint, None, None) == {}
    assert taken == [torch.device("cuda", 1)]
    assert _own_part(World(), small_onnx, None, None) == {}
