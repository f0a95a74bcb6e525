from __future__ import annotations

import itertools
import re

import pytest

from tests.bench.report import sample
from unet_edge_bench.report import layers, pareto, roof, stacks, steadiness, strips
from unet_edge_bench.report.axis import linear, logarithmic
from unet_edge_bench.report.canvas import WIDE, clipped, text_width
from unet_edge_bench.report.pareto import Mark, front, placed
from unet_edge_bench.report.view import View


def test_a_linear_axis_holds_its_values_and_ends_in_round_numbers():
    axis = linear(0, 93, 100, 600)
    assert (axis.low, axis.high) == (0, 100)
    assert axis.at(0) == 100
    assert axis.at(50) == 350
    assert [text for _, text in axis.labels()][:2] == ["0", "20"]
    assert next(text for _, text in linear(0.9862, 0.9884, 300, 0, gap=40).labels()) == "0.9860"


def test_a_logarithmic_axis_gives_equal_ratios_equal_lengths():
    axis = logarithmic([50, 400], 0, 800)
    assert axis.at(100) - axis.at(50) == pytest.approx(axis.at(400) - axis.at(200))
    places = [place for place, _ in axis.labels()]
    assert len(places) >= 3
    assert all(b - a >= 46 for a, b in itertools.pairwise(places))


def test_equal_values_do_not_break_an_axis():
    assert linear(5, 5, 0, 100).at(5) >= 0
    assert logarithmic([5, 5], 0, 100).at(5) == pytest.approx(50)


def test_the_front_holds_what_nothing_beats_and_nothing_wrong():
    marks = [
        Mark(50, 0.98, "quick", "ok"),
        Mark(60, 0.97, "beaten", "ok"),
        Mark(90, 0.99, "good", "ok"),
        Mark(40, 0.999, "wrong", "wrong"),
        Mark(30, 0.999, "untimed", "untimed"),
    ]
    assert [mark.label for mark in front(marks)] == ["quick", "good"]


def test_labels_never_touch():
    points = [(100 + 14 * n, 100 + n) for n in range(12)]
    labels = [f"a model called {n}" for n in range(12)]
    spots = [spot for spot in placed(labels, points, (0, 0, 400, 200)) if spot]
    assert len(spots) >= 4
    boxes = [(x, y - 11, x + text_width(text), y + 4) for x, y, text in spots]
    assert all(a[0] >= 0 and a[2] <= 400 for a in boxes)
    for a, b in itertools.combinations(boxes, 2):
        assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_long_name_keeps_both_ends():
    name = "a-very-long-model-name-of-many-letters.onnx, 2 threads"
    short = clipped(name, 150)
    assert text_width(short) <= 150
    assert short.startswith("a-very")
    assert short.endswith("threads")


def dots(drawing, state="dots"):
    """Places of the dots of each strip of a kind in the wide drawing."""
    wide = drawing.partition('<svg class="narrow"')[0]
    return [
        re.findall(r"M([\d.]+) ([\d.]+)h0", path) for path in re.findall(rf'<path class="{state}" d="([^"]+)"', wide)
    ]


def test_every_sample_is_a_dot(results):
    results["rows"] = [results["rows"][0]]
    row = results["rows"][0]
    for stage in sample.SHARES:
        # Far enough from each other to be dots of their own.
        row["samples_ms"][stage] = [[[50.0 + 2 * n + 10 * launch for n in range(5)]] for launch in range(5)]
    for name, value in (("p5", 150), ("median", 180), ("p95", 290), ("low", 170), ("high", 190)):
        row["statistics"]["total"][name] = value
    (found,) = dots(strips.strips(View(results)))
    assert len(found) == 25
    lanes = sorted({float(y) for _, y in found})
    assert lanes[-1] - lanes[0] > 12  # launches lie apart


def test_what_lies_beyond_the_axis_is_said(results):
    results["rows"] = [results["rows"][0]]
    results["rows"][0]["samples_ms"]["inference"][0][0][0] = 9000.0
    drawing = strips.strips(View(results))
    assert "2 beyond the axis, up to 9,0" in drawing
    assert "outliers up to 9,0" in drawing or "outlier up to 9,0" in drawing


def test_a_wrong_row_is_marked(results):
    view = View(results)
    assert len(dots(strips.strips(view), "dots wrong")) == 1
    assert "wrong, " in strips.strips(view)
    assert 'class="cross"' in pareto.by_latency(view)
    assert 'class="point hollow"' in pareto.by_size(view)  # the package that was scored and not timed


def test_bars_are_as_long_as_their_times(results):
    drawing = stacks.stage_bars(View(results)).partition('<svg class="narrow"')[0]
    widths = {kind: [float(w) for w in re.findall(rf'class="{kind}"[^>]* width="([\d.]+)"', drawing)] for kind in
              ("stage0", "stage1")}  # fmt: skip
    assert len(widths["stage1"]) == 7
    assert 0.6 * WIDE < max(widths["stage1"]) < WIDE
    first, second = widths["stage1"][:2]
    medians = [row["statistics"]["inference"]["median"] for row in results["rows"][:2]]
    assert (first + 1) / (second + 1) == pytest.approx(medians[0] / medians[1], rel=0.01)


def test_a_limit_is_drawn_inside_its_layer(results):
    drawing = layers.layer_bars(View(results).by_id["onnx2-small"]).partition('<svg class="narrow"')[0]
    took = [float(w) for w in re.findall(r'class="layer \w+"[^>]* width="([\d.]+)"', drawing)]
    least = [float(w) for w in re.findall(r'class="limit \w+"[^>]* width="([\d.]+)"', drawing)]
    found = results["rows"][2]["layers"]
    assert len(took) == len(least) == len(found)
    for bar, limit, layer in zip(took, least, found, strict=True):
        assert limit / bar == pytest.approx(layer["limit_ms"] / layer["ms"], abs=0.05)


def test_a_long_network_shows_the_layers_that_take_longest(results):
    row = results["rows"][2]
    row["layers"] = [{**row["layers"][0], "name": f"layer{n}", "ms": 1.0 + n, "limit_ms": 0.5} for n in range(80)]
    drawing = layers.layer_bars(View(results).by_id["onnx2-small"])
    assert "layer79<" in drawing
    assert "layer19<" not in drawing
    assert drawing.index("layer20<") < drawing.index("layer79<")  # in the network's order


def test_the_roof_breaks_at_the_ridge(results):
    view = View(results)
    drawing = roof.roofline(view, view.by_id["onnx2-small"]).partition('<svg class="narrow"')[0]
    roofs = re.findall(r'class="roof" d="M([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)L([\d.]+) ([\d.]+)"', drawing)
    assert len(roofs) == 2
    for x0, y0, x1, y1, x2, y2 in (map(float, found) for found in roofs):
        assert x0 < x1 < x2 <= WIDE
        assert y0 > y1 == y2
    assert "2 threads: 141 GFLOP/s, 20 GB/s" in drawing
    assert drawing.count('class="small ') == len(sample.LAYERS)
    assert drawing.count("point wrong") == 1


def test_the_reference_loop_shows_every_round(results):
    wide = steadiness.steadiness(results["noise"]).partition('<svg class="narrow"')[0]
    assert wide.count("launch ") == sample.LAUNCHES * sample.ROUNDS
    assert wide.count("point hollow") == 2


@pytest.mark.parametrize("part", ["scores", "layers", "cost"])
def test_without_its_part_there_is_no_drawing(results, part):
    for row in results["rows"]:
        row[part] = None
    view = View(results)
    gone = {
        "scores": [pareto.by_latency(view), pareto.by_size(view)],
        "layers": [layers.layer_bars(row) for row in view.rows],
        "cost": [roof.roofline(view, None)],
    }[part]
    assert set(gone) == {""}


def test_without_times_there_is_no_drawing():
    rows = [sample.stopped("f", "f", "failed", "broken")]
    view = View(sample.results(rows=rows, ranking=[], noise={}))
    drawings = [strips.strips(view), stacks.stage_bars(view), stacks.startup_bars(view), roof.roofline(view, None)]
    assert drawings == [""] * 4
    assert steadiness.steadiness({}) == ""
