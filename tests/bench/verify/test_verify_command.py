"""`unet-edge verify` as it is typed."""

from __future__ import annotations

import json
import shutil
import sys

import pytest
from click.testing import CliRunner
from PIL import Image

from tests.bench.test_page import Reader
from tests.browser import check_page
from unet_edge.cli import main

from .conftest import LAYER, one_percent


@pytest.fixture
def verify(monkeypatch):
    def run(*arguments):
        return CliRunner().invoke(main, ["verify", *map(str, arguments)])

    return run


def test_agreement(verify, checkpoint, onnx_file, pairs):
    done = verify(checkpoint, onnx_file, "--images", pairs[0])
    assert done.exit_code == 0, done.output
    assert done.stdout.splitlines()[-1] == "PASS  net.onnx and net.pth agree on 3 images"
    assert "100 %" in done.stdout


def test_disagreement(verify, checkpoint, spoil_onnx, pairs):
    done = verify(checkpoint, spoil_onnx(LAYER, one_percent), checkpoint, "--images", pairs[0])
    assert done.exit_code == 1
    *_, problem, reason, last_reason, passed = done.stdout.splitlines()
    assert problem.startswith("FAIL  spoilt.onnx and net.pth do not agree: largest difference")
    assert reason.startswith(f"      because {LAYER} has other weights")
    assert last_reason.startswith("      because ")
    assert passed == "PASS  net.pth and net.pth are identical on 3 images"


def test_masks(verify, checkpoint, onnx_file, pairs):
    done = verify(checkpoint, onnx_file, "--images", pairs[0], "--masks", pairs[1])
    assert done.exit_code == 0
    assert "against the masks" in done.stdout
    assert "95% interval over 3 images" in done.stdout
    other = verify(checkpoint, onnx_file, "--images", pairs[0], "--masks", pairs[1], "--mask-suffix", "_nothing")
    assert other.exit_code == 1
    assert "no mask belongs to an image" in other.stderr


def test_bounds_given_by_hand(verify, checkpoint, onnx_file, spoil_checkpoint, pairs):
    strict = verify(checkpoint, onnx_file, "--images", pairs[0], "--max-logit-difference", "0")
    assert strict.exit_code == 1
    assert "allowed 0" in strict.stdout
    slightly = spoil_checkpoint(lambda network: network.outc.conv.weight.mul_(1.01))
    loose = ("--max-logit-difference", "10", "--min-equal-labels", "0.9")
    assert verify(checkpoint, slightly, "--images", pairs[0]).exit_code == 1
    assert verify(checkpoint, slightly, "--images", pairs[0], *loose).exit_code == 0
    done = verify(checkpoint, slightly, "--images", pairs[0], *loose, "--min-dice", "1")
    assert done.exit_code == 1
    assert ", required 1\n" in done.stdout


def test_json_is_all_that_is_printed(verify, checkpoint, onnx_file, pairs):
    done = verify(checkpoint, onnx_file, "--images", pairs[0], "--json", "--limit", "2")
    result = json.loads(done.stdout)
    assert result["schema"] == "unet-edge-verify/1"
    assert result["passed"]
    assert result["images"] == 2
    pair = result["pairs"][0]
    assert {image["name"] for image in pair["images"]} <= {"photo 00.png", "photo 01.png"}
    assert pair["tolerance"]["max_difference"] >= pair["max_difference"]


def test_outputs_are_saved_and_compared_elsewhere(verify, checkpoint, onnx_file, pairs, tmp_path):
    for model, folder in ((checkpoint, "a"), (onnx_file, "b")):
        done = verify(model, "--images", pairs[0], "--save-outputs", tmp_path / folder)
        assert done.exit_code == 0, done.output
        assert "for 3 images" in done.stdout
    done = verify(tmp_path / "a", tmp_path / "b")
    assert done.exit_code == 0, done.output
    assert "net.pth: saved outputs of torch" in done.stdout
    mixed = verify(tmp_path / "a", onnx_file, "--images", pairs[0])
    assert mixed.exit_code == 0, mixed.output


def test_outputs_of_several_models_have_a_folder_each(verify, checkpoint, onnx_file, pairs, tmp_path):
    done = verify(checkpoint, onnx_file, "--images", pairs[0], "--save-outputs", tmp_path / "all")
    assert done.exit_code == 0, done.output
    assert {path.name for path in (tmp_path / "all").iterdir()} == {"net.pth", "net.onnx"}


def test_an_unreadable_image(verify, checkpoint, onnx_file, pairs, tmp_path):
    folder = shutil.copytree(pairs[0], tmp_path / "images")
    (folder / "photo 99.png").write_bytes(b"no picture")
    done = verify(checkpoint, onnx_file, "--images", folder)
    assert done.exit_code == 1
    assert "left out: " in done.stdout
    assert "PASS  net.onnx and net.pth agree on 3 images" in done.stdout
    assert done.stdout.splitlines()[-1] == "FAIL  1 image could not be used"
    saved = verify(checkpoint, "--images", folder, "--save-outputs", tmp_path / "saved")
    assert saved.exit_code == 1
    assert "left out: " in saved.stderr


def test_layer_by_layer(verify, checkpoint, onnx_file, spoil_onnx, pairs):
    done = verify(checkpoint, onnx_file, "--images", pairs[0], "--layers")
    assert done.exit_code == 0, done.output
    assert LAYER in done.stdout
    spoilt = spoil_onnx(LAYER, one_percent)
    # Even where the outputs are allowed to be anything.
    bounds = ("--max-logit-difference", "1e9", "--min-equal-labels", "0")
    done = verify(checkpoint, spoilt, "--images", pairs[0], "--layers", *bounds)
    assert done.exit_code == 1
    assert f"layer {LAYER} departs" in done.stdout


def test_how_it_must_be_asked(verify, checkpoint, onnx_file, pairs, tmp_path):
    assert "give a CANDIDATE" in verify(checkpoint).stderr
    assert "--images is needed" in verify(checkpoint, onnx_file).stderr
    assert verify(checkpoint, onnx_file, "--images", pairs[0], "--min-dice", "3").exit_code == 2
    (tmp_path / "folder").mkdir()
    done = verify(checkpoint, tmp_path / "folder", "--images", pairs[0])
    assert done.exit_code == 1
    assert done.stderr.strip().endswith("is neither a model nor a folder made by --save-outputs")


def test_the_page(verify, checkpoint, onnx_file, spoil_checkpoint, pairs, tmp_path):
    spoilt = spoil_checkpoint(lambda network: network.outc.conv.weight.mul_(1.3))
    page = tmp_path / "page.html"
    done = verify(checkpoint, onnx_file, spoilt, "--images", pairs[0], "--masks", pairs[1], "--html", page)
    assert done.exit_code == 1
    text = page.read_text(encoding="utf-8")
    reader = Reader(text)
    assert reader.open == []
    assert reader.tags.count("img") == 2 * 3 * 5
    assert all(address.startswith("data:") for address in reader.addresses)
    assert not {"script", "iframe", "object", "embed"} & set(reader.tags)
    assert "://" not in text
    for words in ("spoilt.pth does not agree with net.pth", "photo 02.png", "Against the true masks", "95 % interval"):
        assert words in reader.text, words
    assert check_page(page) == []


def test_a_page_of_damaged_models_and_saved_outputs(verify, checkpoint, spoil_checkpoint, pairs, tmp_path):
    spoilt = spoil_checkpoint(lambda network: network.outc.conv.weight.mul_(float("nan")))
    for model, folder in ((checkpoint, "a"), (spoilt, "b")):
        verify(model, "--images", pairs[0], "--save-outputs", tmp_path / folder)
    done = verify(tmp_path / "a", tmp_path / "b", "--html", tmp_path / "page.html")
    assert done.exit_code == 1
    assert "NaN" in done.stdout
    reader = Reader((tmp_path / "page.html").read_text(encoding="utf-8"))
    assert reader.tags.count("img") == 3 * 4  # the images themselves are not known
    assert "NaN" in reader.text


def test_names_in_a_page_are_escaped(verify, checkpoint, pairs, tmp_path):
    nasty = tmp_path / "images" / "<b>&'.png"
    nasty.parent.mkdir()
    Image.open(min(pairs[0].iterdir())).save(nasty)
    done = verify(checkpoint, checkpoint, "--images", nasty.parent, "--html", tmp_path / "page.html")
    assert done.exit_code == 0, done.output
    text = (tmp_path / "page.html").read_text(encoding="utf-8")
    assert "<b>&'" not in text
    assert "<b>&'.png" in Reader(text).text


def test_results_are_told_before_what_went_wrong_after_them(
    verify, checkpoint, onnx_file, pairs, tmp_path, monkeypatch
):
    saved = tmp_path / "saved"
    assert verify(onnx_file, "--images", pairs[0], "--save-outputs", saved).exit_code == 0
    done = verify(checkpoint, saved, onnx_file, "--images", pairs[0], "--layers")
    assert done.exit_code == 1
    assert "PASS  net.onnx and net.pth agree on 3 images" in done.stdout
    assert "net.onnx against net.pth, layer by layer" in done.stdout
    assert "not from saved outputs: give both models" in done.stderr
    monkeypatch.setitem(sys.modules, "jinja2", None)
    done = verify(checkpoint, onnx_file, "--images", pairs[0], "--html", tmp_path / "page.html")
    assert done.exit_code == 1
    assert "PASS  net.onnx and net.pth agree on 3 images" in done.stdout
    assert "verify --html needs jinja2" in done.stderr


def test_the_seed_is_checked_before_anything_runs(verify, checkpoint, onnx_file, pairs):
    folders = ("--images", pairs[0], "--masks", pairs[1])
    assert verify(checkpoint, onnx_file, *folders, "--seed", "-1").exit_code == 2


def test_layers_of_a_checkpoint_that_does_not_know_its_scale(verify, checkpoint, onnx_file, pairs, tmp_path):
    import torch

    from unet_edge.checkpoint import read_checkpoint

    foreign = tmp_path / "foreign.pth"
    values = [0, 100, 255]
    torch.save({**read_checkpoint(checkpoint).build().state_dict(), "mask_values": values}, foreign)
    done = verify(foreign, onnx_file, "--images", pairs[0], "--scale", "1", "--layers")
    assert done.exit_code == 0, done.output
    assert "No layer departs" in done.stdout


def test_a_candidate_that_could_not_run_every_image_fails(verify, checkpoint, pairs, tmp_path):
    few = tmp_path / "few"
    few.mkdir()
    shutil.copy(next(path for path in pairs[0].iterdir()), few)
    assert verify(checkpoint, "--images", few, "--save-outputs", tmp_path / "saved").exit_code == 0
    done = verify(checkpoint, tmp_path / "saved", "--images", pairs[0])
    assert done.exit_code == 1
    assert f"left out: 2 of 3 images have no output in {tmp_path / 'saved'}" in done.stdout
    assert verify(checkpoint, tmp_path / "saved", "--images", few).exit_code == 0


def test_models_of_one_name_are_told_apart(verify, checkpoint, pairs, tmp_path):
    (tmp_path / "other").mkdir()
    other = shutil.copy(checkpoint, tmp_path / "other")
    done = verify(checkpoint, other, "--images", pairs[0])
    assert f"PASS  other/{checkpoint.name} and {checkpoint.parent.name}/{checkpoint.name} are identical" in done.stdout
