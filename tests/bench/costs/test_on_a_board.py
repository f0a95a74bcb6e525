"""The ONNX road needs numpy and ONNX Runtime, in the process that asks and in the one that looks."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from tests.layers.test_layers import BLOCK, ROOT

BLOCKED = {"torch", "onnx", "onnxscript", "coremltools", "google", "click", "jinja2", "matplotlib", "unet_edge"}


@pytest.fixture
def on_a_board(tmp_path):
    """A function that runs Python code where `BLOCKED` cannot be imported, in its child processes neither."""
    (tmp_path / "sitecustomize.py").write_text(BLOCK.format(blocked=BLOCKED))
    paths = [tmp_path, *(ROOT / folder for folder in (".", "runtime", "export", "benchmarks"))]

    def run(code):
        environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, paths))}
        return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, env=environment)

    return run


def test_an_onnx_file_is_counted_and_timed(on_a_board, small_onnx):
    done = on_a_board(f"""
from unet_edge_bench.costs import bottleneck, layer_costs, profile, roofline
costs = layer_costs({str(small_onnx)!r}, "onnx", (32, 48))
limits = roofline(costs, profile({str(small_onnx)!r}, (32, 48), 1, 2), {{"gflops": 1.0, "gbytes_per_s": 1.0}})
print(limits.macs, bottleneck(limits))
""")
    assert done.returncode == 0, done.stderr
    assert int(done.stdout.split()[0]) > 0


@pytest.mark.parametrize("call", ["layer_costs({0!r}, 'torch', (32, 48))", "profile({0!r}, (32, 48), 1, 2)"])
def test_a_checkpoint_says_what_is_missing(on_a_board, small_checkpoint, call):
    done = on_a_board(f"from unet_edge_bench.costs import *\n{call.format(str(small_checkpoint))}")
    last = done.stderr.strip().splitlines()[-1]
    assert "needs torch: pip install 'unet-edge[train]'" in last
    assert str(small_checkpoint) in last


def test_a_package_says_what_is_missing(on_a_board, tmp_path):
    package = tmp_path / "model.mlpackage"
    package.mkdir()
    done = on_a_board(f"from unet_edge_bench.costs import *\nlayer_costs({str(package)!r}, 'coreml', (32, 48))")
    assert "pip install 'unet-edge[export]'" in done.stderr.strip().splitlines()[-1]
