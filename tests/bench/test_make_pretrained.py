"""benchmarks/pretrained.py: from a run to a model that could ship."""

import importlib
import json
import shlex
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.nuclei import draw_nuclei
from unet_edge.cli.train import command as train_command
from unet_edge.training.config import TrainConfig
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.segmenter import Segmenter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def tool(monkeypatch):
    monkeypatch.syspath_prepend(BENCHMARKS)
    yield importlib.import_module("pretrained")
    del sys.modules["pretrained"]


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    """A short run on drawn nuclei, with values that are not the recipe's."""
    folder = tmp_path_factory.mktemp("cells")
    for kind in ("images", "masks"):
        (folder / kind).mkdir()
    for number in range(8):
        image, truth = draw_nuclei((96, 96), number)
        Image.fromarray(image).save(folder / "images" / f"{number}.png")
        Image.fromarray(truth.astype(np.uint8) * 255).save(folder / "masks" / f"{number}.png")
    (folder / "val.txt").write_text("3\n7\n", encoding="utf-8")
    data = DataConfig(
        folder / "images", folder / "masks", val_list=folder / "val.txt", class_names=("background", "nucleus")
    )
    config = TrainConfig(epochs=2, batch_size=2, flip="both", learning_rate=3e-3)
    train(data, folder / "run", NetworkConfig(4, 2, bilinear=True, scale=1.0), config, "cpu")
    return folder / "run"


def test_the_model_its_card_and_its_list_entry_say_the_same(tool, run, tmp_path, capsys):
    assert tool.main([str(run), "--name", "nuclei", "--models", str(tmp_path)]) == 0
    facts = json.loads((tmp_path / "nuclei.json").read_text(encoding="utf-8"))
    card = (tmp_path / "nuclei.md").read_text(encoding="utf-8")
    model = tmp_path / "nuclei.onnx"
    assert facts["sha256"] == sha256_of(model)
    assert facts["bytes"] == model.stat().st_size
    assert facts["scores"]["images"] == 2
    assert facts["sha256"] in card
    scores = f"| {facts['scores']['dice']:.4f} | {facts['scores']['iou']:.4f} |"
    assert [scores in line for line in card.splitlines() if line.startswith(("| checkpoint", "| this file"))] == [
        True
    ] * 2
    assert "| grey, on dark ground | 2 |" in card
    assert "6 images trained, 2 validated" in card
    assert str(run.parent) not in card + Segmenter.open(model).spec.to_json()


def test_the_command_in_the_card_gives_the_run_again(tool, run):
    config = json.loads((run / "config.json").read_text(encoding="utf-8"))
    words = shlex.split(tool.training_command(config, "run"))
    assert words[:2] == ["unet-edge", "train"]
    assert "#" not in words  # nothing that only Python can set
    words.remove("--bilinear")
    options = dict(zip(words[2::2], words[3::2], strict=True))
    assert options == {
        "--images": "images",
        "--masks": "masks",
        "--val-list": "val.txt",
        "--class-names": "background,nucleus",
        "--scale": "1",
        "--base-channels": "4",
        "--depth": "2",
        "--epochs": "2",
        "--learning-rate": "0.003",
        "--flip": "both",
        "--out": "run",
    }
    known = {name for option in train_command.params for name in option.opts}
    assert set(options) <= known


@pytest.mark.parametrize(
    ("pixel", "kind"),
    [((20, 20, 20), "grey, on dark"), ((230, 230, 230), "grey, on bright"), ((230, 150, 220), "coloured, on bright")],
)
def test_kinds_of_images_are_told_apart(tool, pixel, kind):
    assert tool.kind_of(np.full((4, 4, 3), pixel, np.uint8)).startswith(kind)


def test_a_folder_that_is_no_run_is_one_line(tool, tmp_path, capsys):
    assert tool.main([str(tmp_path), "--name", "nuclei", "--models", str(tmp_path / "models")]) == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("error: ")
    assert not (tmp_path / "models").exists()


def test_a_run_without_validation_has_no_scores(tool, run, tmp_path):
    from unet_edge.training.run_folder import RunFolder

    copy = RunFolder(tmp_path)
    copy.split.write_text(json.dumps({**RunFolder(run).read_split(), "val": []}), encoding="utf-8")
    with pytest.raises(InputError, match="no validation images"):
        tool.make(copy, "nuclei", "MIT", tmp_path / "models")
