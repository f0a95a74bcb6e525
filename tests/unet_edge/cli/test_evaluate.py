"""`unet-edge evaluate`: what it prints and writes, on every backend."""

from __future__ import annotations

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner

from unet_edge.cli import main


def run(*arguments):
    return CliRunner().invoke(main, ["evaluate", *map(str, arguments)])


@pytest.fixture
def where(trained):
    return "--images", trained.parent / "data" / "images", "--masks", trained.parent / "data" / "masks"


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


def test_other_backends_score_the_same_with_flips_too(small_checkpoint, small_onnx, pairs_folder, tmp_path):
    where = "--images", pairs_folder[0], "--masks", tmp_path / "two"
    (tmp_path / "two").mkdir()
    from PIL import Image

    for path in pairs_folder[1].iterdir():
        Image.fromarray((np.asarray(Image.open(path)) > 0).astype(np.uint8) * 255).save(tmp_path / "two" / path.name)
    for flips in ("none", "both"):
        ours, theirs = (
            json.loads(run(model, *where, "--flips", flips, "--json").stdout)
            for model in (small_checkpoint, small_onnx)
        )
        assert theirs["backend"] == "onnx"
        assert theirs["dice"] == pytest.approx(ours["dice"], abs=1e-4)
    refused = run(small_onnx, *where, "--batch", 4)
    assert refused.exit_code == 2
    assert "--batch is for torch" in refused.output
