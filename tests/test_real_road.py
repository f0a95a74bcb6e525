"""The whole road on real images: train, export, evaluate, predict, and the same answer at both ends."""

import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from unet_edge.cli import main
from unet_edge.training.config import TrainConfig
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_runtime.segmenter import Segmenter


def some(source: Path, target: Path, count: int, step: int) -> Path:
    """A folder of links to every `step`-th file."""
    target.mkdir(parents=True)
    for path in sorted(source.iterdir())[::step][:count]:
        (target / path.name).symlink_to(path)
    return target


def run(*arguments: object) -> str:
    result = CliRunner().invoke(main, [str(argument) for argument in arguments])
    assert result.exit_code == 0, result.output
    return result.stdout


@pytest.fixture(scope="module", params=["transposed", "bilinear"])
def roads(request, real_data, tmp_path_factory) -> Path:
    """A run on CamVid with each decoder: eleven classes, none of them a background, void ignored.

    Four epochs: after two, some pixels are so little decided that fp16 decides them otherwise.
    """
    folder = tmp_path_factory.mktemp("roads")
    parts = {"images": real_data / "camvid" / "train" / "images", "masks": real_data / "camvid" / "train" / "masks"}
    images, masks = (some(source, folder / name, 24, 12) for name, source in parts.items())
    data = DataConfig(images, masks, ignore=11, has_background=False, validation=25)
    train(
        data,
        folder / "run",
        NetworkConfig(8, 4, request.param == "bilinear", scale=0.5),
        TrainConfig(epochs=4, batch_size=2),
        "cpu",
    )
    return folder


def test_eleven_classes_score_the_same_through_torch_and_onnx(roads):
    checkpoint, onnx = roads / "run" / "best.pth", roads / "run" / "best.onnx"
    agreement = json.loads(run("export", checkpoint, "--json"))["artefacts"][0]["agreement"]
    assert agreement["max_logit_difference"] < 1e-4
    assert agreement["equal_labels"] >= 0.99999
    folders = ["--images", roads / "images", "--masks", roads / "masks", "--json"]
    torch_scores, onnx_scores = (json.loads(run("evaluate", model, *folders)) for model in (checkpoint, onnx))
    assert len(torch_scores["classes"]) == 11
    assert torch_scores["background_in_mean"] is True
    assert round(torch_scores["iou"], 4) == round(onnx_scores["iou"], 4)
    for ours, theirs in zip(torch_scores["classes"], onnx_scores["classes"], strict=True):
        assert ours["name"] == theirs["name"]
        assert ours["iou"] == pytest.approx(theirs["iou"], abs=5e-5)


def test_masks_of_real_photographs_are_the_same_through_both(roads, tmp_path):
    checkpoint = roads / "run" / "best.pth"
    run("predict", "-m", checkpoint, roads / "images", "-o", tmp_path / "torch")
    run("predict", "-m", checkpoint, "--backend", "onnx", roads / "images", "-o", tmp_path / "onnx")
    differing = total = 0
    for path in sorted((tmp_path / "torch").iterdir()):
        ours, theirs = (np.asarray(Image.open(tmp_path / kind / path.name)) for kind in ("torch", "onnx"))
        assert ours.shape == (360, 480)
        assert ours.max() <= 10  # void is never predicted
        differing, total = differing + int((ours != theirs).sum()), total + ours.size
    assert differing <= total * 1e-5


def test_near_duplicates_stay_on_one_side(real_data, tmp_path):
    cars = real_data / "carvana"
    out = tmp_path / "run"
    run(
        "train", "--images", cars / "images", "--masks", cars / "masks", "--out", out, "--group-by", "^[^_]+",
        "--val-list", cars / "val_cars.txt", "--fraction", 0.03, "--scale", 0.03, "--base-channels", 4, "--depth", 2,
        "-e", 1, "-b", 8, "--device", "cpu",
    )  # fmt: skip
    split = json.loads((out / "split.json").read_text())
    sides = [{pair["name"].split("_")[0] for pair in split[side]} for side in ("train", "val")]
    assert sides[1] == set((cars / "val_cars.txt").read_text().split())
    assert not sides[0] & sides[1]


@pytest.mark.parametrize("precision", ["stored", "ideal"])
def test_a_core_ml_file_in_fp32_computes_what_pytorch_does(roads, tmp_path, precision):
    checkpoint, package = roads / "run" / "best.pth", tmp_path / "model.mlpackage"
    run("export", checkpoint, "--format", "coreml", "--precision", "fp32", "-o", package)
    candidate = Segmenter.open(package, "coreml-ref", precision=precision)
    reference = Segmenter.open(checkpoint)
    for image in sorted((roads / "images").iterdir())[:6]:
        ours, theirs = candidate.segment(image), reference.segment(image)
        assert np.abs(ours.output - theirs.output).max() <= 1e-5 * np.abs(theirs.output).max()
        # So short a training leaves classes that tie to the last bit; one pixel an image may fall either way.
        assert (ours.labels != theirs.labels).sum() <= 1


def test_a_core_ml_file_in_fp16_scores_what_pytorch_does(roads, tmp_path):
    checkpoint, package = roads / "run" / "best.pth", tmp_path / "model.mlpackage"
    report = json.loads(run("export", checkpoint, "--format", "coreml", "-o", package, "--json"))["artefacts"][0]
    assert "proves the file, not the device's arithmetic" in report["proof"]
    assert report["agreement"]["equal_labels"] >= 0.999
    folders = ["--images", roads / "images", "--masks", roads / "masks", "--json"]
    here = json.loads(run("evaluate", checkpoint, *folders))
    there = json.loads(run("evaluate", package, "--backend", "coreml-ref", *folders))
    assert there["backend"] == "coreml-ref"
    assert there["dice"] == pytest.approx(here["dice"], abs=1e-3)
