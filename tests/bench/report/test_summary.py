from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tests.bench.report import sample
from tests.layers.test_layers import BLOCK
from unet_edge_bench import report
from unet_edge_bench.report import markdown

ROOT = Path(__file__).parents[3]


def tables(text):
    """Tables as lists of rows of cells."""
    rows = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text.splitlines() if line.startswith("|")]
    return [[cell.strip() for cell in row] for row in rows]


def test_it_is_a_table_for_each_size_with_every_row(results):
    text = markdown(results)
    assert text.startswith("### Nothing beats best.onnx, 2 threads\n")
    found = tables(text)
    assert {len(row) for row in found} == {12}
    assert [row[0] for row in found].count("model") == 2
    assert [row[0] for row in found].count("best.onnx, 2 threads") == 2
    wrong = next(row for row in found if row[0].startswith("bgr"))
    assert "wrong" in wrong
    assert "- bgr.onnx, 2 threads · 320 × 480: 31,204 of 2,457,600 labels differ" in text
    assert "cannot tell" in text
    assert "AMD EPYC, 2 cores" in text
    assert results["command"] in text


def test_names_stay_names(results):
    results["rows"][2]["label"] = "a|b <img> @someone #1 `c`"
    text = markdown(results)
    assert {len(row) for row in tables(text)} == {12}
    assert r"a\|b \<img\> \@someone \#1 \`c\`" in text
    assert "<img>" not in text


def test_an_unreliable_run_says_so():
    text = markdown(sample.results(noise=sample.noise(drift=0.12)))
    assert "> **Not reliable:** the reference loop took 12% longer" in text


@pytest.mark.parametrize("rows", [slice(2, 3), slice(7, 8)])
def test_few_rows(results, rows):
    text = markdown({**results, "rows": results["rows"][rows], "ranking": []})
    assert len(tables(text)) == 3
    assert "Who is faster" not in text


@pytest.mark.parametrize(
    ("function", "besides"), [("markdown", {"jinja2", "markupsafe"}), ("render", set())], ids=["Markdown", "page"]
)
def test_a_board_can_write_it(results, function, besides):
    code = BLOCK.format(blocked={"torch", "onnx", "coremltools", "click", "onnxruntime"} | besides)
    code += f"import json, sys; from unet_edge_bench import report; print(report.{function}(json.load(sys.stdin)))"
    paths = os.pathsep.join(str(ROOT / folder) for folder in (".", "runtime", "benchmarks"))
    done = subprocess.run(
        [sys.executable, "-c", code],
        input=json.dumps(results),
        capture_output=True,
        text=True,
        env={**os.environ, "PYTHONPATH": paths, "PYTHONIOENCODING": "utf-8"},
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.strip() == getattr(report, function)(results).strip()
