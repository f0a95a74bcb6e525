"""Models that come with the package: found by name, checked, and good at what they say."""

import json
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import unet_edge_runtime
from tests.nuclei import draw_nuclei
from unet_edge_runtime import pretrained as module
from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.pretrained import find_model, pretrained, pretrained_names
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter

PACKAGE = Path(unet_edge_runtime.__file__).parent


def dice_of(segmenter, image, truth):
    labels = segmenter.segment(image).labels
    return ConfusionMatrix(2).add(truth.astype(np.uint8), labels).dice[1]


@pytest.fixture
def shipped(monkeypatch, tmp_path):
    """A copy of the shipped models that a test may damage."""
    folder = Path(shutil.copytree(PACKAGE / "models", tmp_path / "models"))
    monkeypatch.setattr(module, "_folder", lambda: folder)
    return folder


@pytest.mark.parametrize("name", pretrained_names())
def test_every_model_is_complete_and_describes_itself(name):
    model = pretrained(name)
    spec = Segmenter.open(find_model(name)).spec
    assert model.path.stat().st_size == model.bytes
    assert spec.input_size is None  # images of any size
    assert spec.provenance["license"] == model.licence
    assert 0 < model.scores["iou"] < model.scores["dice"] < 1
    card = model.card.read_text(encoding="utf-8")
    assert model.sha256 in card
    assert f"{model.scores['dice']:.4f} | {model.scores['iou']:.4f}" in card
    assert {"## Scores", "## Limits", "## Data", "## How it was made"} <= set(card.splitlines())
    for text in (card, spec.to_json()):
        assert "/tmp/" not in text
        assert str(Path.home()) not in text


def test_nuclei_finds_drawn_nuclei():
    image, truth = draw_nuclei()
    assert dice_of(Segmenter.open(find_model("nuclei")), image, truth) > 0.8


def test_nuclei_finds_real_nuclei(real_data):
    folder = real_data / "dsb2018"
    segmenter, total = Segmenter.open(find_model("nuclei")), ConfusionMatrix(2)
    for image in sorted((folder / "images").iterdir())[4:100:20]:
        mask = folder / "masks" / image.name
        total.add(labels_from_mask(read_mask(mask), segmenter.spec, mask), segmenter.segment(image).labels)
    assert total.dice[1] > 0.7


def test_a_file_of_that_name_wins_and_a_folder_does_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    shutil.copyfile(find_model("nuclei"), "other.onnx")
    assert find_model("other.onnx") == Path("other.onnx")
    Path("nuclei").mkdir()
    assert find_model("nuclei") == pretrained("nuclei").path
    assert find_model("./nuclei") == Path("nuclei")
    Path("nuclei").rmdir()
    Path("nuclei").touch()
    assert find_model("nuclei") == Path("nuclei")


def test_what_is_neither_is_said_with_the_names(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(InputError, match=r"^Nucli: no such model file.*did you mean nuclei\?.*there is .*nuclei"):
        find_model("Nucli")
    with pytest.raises(InputError, match=r"^run/best\.onnx: no such model file$"):
        find_model("run/best.onnx")
    with pytest.raises(InputError, match=r"^\.\./models/nuclei: no pretrained model of that name"):
        pretrained("../models/nuclei")


def test_a_damaged_model_is_not_run(shipped):
    content = bytearray((shipped / "nuclei.onnx").read_bytes())
    content[len(content) // 2] ^= 1
    (shipped / "nuclei.onnx").write_bytes(content)
    with pytest.raises(ModelFileError, match=r"nuclei is damaged.*install unet-edge again"):
        find_model("nuclei")
    (shipped / "nuclei.onnx").unlink()
    with pytest.raises(ModelFileError, match="nuclei is damaged"):
        find_model("nuclei")


@pytest.mark.parametrize("text", ["", "[]", '{"purpose": "x"}', '{"more": 1}'])
def test_a_damaged_description_is_one_line(shipped, text):
    (shipped / "nuclei.json").write_text(text, encoding="utf-8")
    with pytest.raises(ModelFileError, match="description of the pretrained model nuclei is damaged") as caught:
        find_model("nuclei")
    assert "\n" not in str(caught.value)


def test_without_the_folder_there_are_no_names(shipped):
    shutil.rmtree(shipped)
    assert pretrained_names() == []
    with pytest.raises(InputError, match="there is none"):
        find_model("nuclei")


def test_it_works_out_of_a_zip_archive(tmp_path):
    archive = tmp_path / "runtime.zip"
    with zipfile.ZipFile(archive, "w") as target:
        for file in PACKAGE.rglob("*"):
            if file.is_file() and "__pycache__" not in file.parts:
                target.write(file, Path(PACKAGE.name) / file.relative_to(PACKAGE))
    code = (
        "from unet_edge_runtime import Segmenter, __file__\nfrom unet_edge_runtime.pretrained import *\n"
        "assert '.zip' in __file__, __file__\npath = find_model('nuclei')\nprint(path)\n"
        "print(Segmenter.open(path).spec.class_names)"
    )
    environment = {**os.environ, "PYTHONPATH": str(archive)}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr
    path, names = done.stdout.splitlines()
    assert "nucle" in names
    assert not Path(path).exists()  # what was unpacked is gone with the process


def test_the_wheel_brings_the_models_and_predicts_without_torch(tmp_path):
    pytest.importorskip("hatchling", reason="hatchling, which builds the wheel, is not installed")
    root = PACKAGE.parents[1]
    build = "import sys, hatchling.build as b; print(b.build_wheel(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", build, str(tmp_path)], capture_output=True, text=True, cwd=root)
    assert done.returncode == 0, done.stderr
    with zipfile.ZipFile(next(tmp_path.glob("*.whl"))) as wheel:
        wheel.extractall(tmp_path / "installed")
    held = {path.name for path in (tmp_path / "installed" / "unet_edge_runtime" / "models").iterdir()}
    assert held == {f"{name}.{kind}" for name in pretrained_names() for kind in ("onnx", "md", "json")}
    image, truth = draw_nuclei()
    Image.fromarray(image).save(tmp_path / "cells.png")
    blocked = "import sys\nfor name in ('torch', 'onnx', 'coremltools', 'matplotlib'): sys.modules[name] = None\n"
    code = "from unet_edge.cli import main\nmain(['predict', '--model', 'nuclei', 'cells.png', '--json'])"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "installed")}
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], capture_output=True, text=True, env=environment, cwd=tmp_path
    )
    assert done.returncode == 0, done.stderr
    assert str(tmp_path / "installed") in json.loads(done.stdout)["model"]
    mask = np.asarray(Image.open(tmp_path / "cells_OUT.png"))
    assert ConfusionMatrix(2).add(truth.astype(np.uint8), (mask > 0).astype(np.uint8)).dice[1] > 0.8
