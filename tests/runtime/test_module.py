"""`python -m unet_edge_runtime`: the smallest installation's command."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from unet_edge_runtime import Segmenter
from unet_edge_runtime.__main__ import main

ROOT = Path(__file__).parents[2]


@pytest.fixture
def images(tmp_path, photo):
    for name in ("one.png", "two.png"):
        Image.fromarray(photo).save(tmp_path / name)
    return tmp_path


def test_in_its_own_process_without_torch(small_onnx, images):
    code = """
import sys, runpy
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "coremltools", "onnx", "click"}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
runpy.run_module("unet_edge_runtime", run_name="__main__", alter_sys=True)
"""
    files = [str(images / name) for name in ("one.png", "two.png")]
    done = subprocess.run(
        [sys.executable, "-c", code, str(small_onnx), *files],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": str(ROOT / "runtime")},
    )
    assert done.returncode == 0, done.stderr
    masks = [images / "one_OUT.png", images / "two_OUT.png"]
    assert done.stdout.split() == [str(mask) for mask in masks]
    wanted = np.asarray(Segmenter.open(small_onnx).segment(files[0]).mask)
    np.testing.assert_array_equal(np.asarray(Image.open(masks[0])), wanted)


def test_a_bad_image_is_reported_and_skipped(small_onnx, images, capsys):
    (images / "bad.png").write_text("no image")
    out = images / "out"
    code = main([str(small_onnx), str(images / "bad.png"), str(images / "one.png"), "-o", str(out)])
    assert code == 1
    assert [path.name for path in out.iterdir()] == ["one_OUT.png"]
    assert capsys.readouterr().err == f"error: {images / 'bad.png'}: not an image that Pillow can read\n"


def test_a_bad_model_is_one_line(images, capsys):
    assert main([str(images / "no.onnx"), str(images / "one.png")]) == 1
    assert capsys.readouterr().err == f"error: {images / 'no.onnx'}: no such model file\n"
