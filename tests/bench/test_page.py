from __future__ import annotations

import copy
import re
from html.parser import HTMLParser

import numpy as np
import pytest

from tests.browser import check_page
from unet_edge.html import Picture, PictureRow
from unet_edge_bench.demo.charts import curve_charts, strip_chart
from unet_edge_bench.demo.page import render

NASTY = '<script>alert("&")</script>'
ROWS = [PictureRow("slice", [Picture(title, "data:image/png;base64,AAAA") for title in ("image", "truth")])]


class Reader(HTMLParser):
    """Collects tags, addresses and text, and whether every element is closed."""

    VOID = frozenset({"meta", "link", "img", "br", "line", "circle", "rect", "polyline"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.open, self.text = [], [], [], ""
        self.feed(page)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        self.addresses += [value for name, value in attrs if name in {"src", "href", "srcset", "action", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in self.VOID:
            assert self.open.pop() == tag

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "title"}:
            self.text += " " + data.strip()


@pytest.fixture
def page(demo):
    return (demo / "index.html").read_text(encoding="utf-8")


def test_everything_is_inside(page):
    reader = Reader(page)
    assert reader.open == []
    assert reader.tags.count("img") > 10
    assert all(address.startswith("data:") for address in reader.addresses)
    assert "://" not in page
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert not {"script", "iframe", "object", "embed"} & set(reader.tags)


def test_it_shows_what_was_found(page, results):
    text = re.sub(r"\s+", " ", Reader(page).text)
    agreement = results["backends"]["onnx"]["agreement"]
    assert f"differ in {agreement['different_pixels']} of {agreement['pixels']:,} pixels" in text
    for name, dice in ((c["name"], c["dice"]) for c in results["backends"]["onnx"]["scores"]["classes"]):
        assert name in text
        assert f"{dice:.4f}" in text
    for artefact in results["artefacts"].values():
        assert artefact["sha256"] in text
    for step in results["commands"]:
        assert step["command"] in text
    assert "a quick look on this machine, 1 thread, not the benchmark" in text.lower()
    assert "Core ML: executed by Core ML (reference)" in text.replace(" :", ":")
    if "coreml" not in results["backends"]:
        assert "this proves the file, not the device's arithmetic; Core ML runs on macOS only" in text


def test_names_are_escaped(results):
    for info in results["spec"]["classes"]:
        info["name"] = NASTY
    results["title"] = results["source"] = NASTY
    for one in results["backends"].values():
        for scores in one["scores"]["classes"]:
            scores["name"] = NASTY
    for row in results["training"]["validation"]:
        for scores in row["classes"]:
            scores["name"] = NASTY
    page = render(results, [PictureRow(NASTY, [Picture(NASTY, "data:,", NASTY)])], [Picture(NASTY, "data:,", NASTY)])
    assert NASTY not in page
    assert "script" not in Reader(page).tags
    assert NASTY in Reader(page).text


def test_a_difference_is_not_called_nothing(results):
    results["backends"]["onnx"]["agreement"]["different_pixels"] = 3
    text = Reader(render(results, ROWS, [])).text
    assert "Nothing was lost" not in text
    assert "within its tolerance" in text
    assert "Nothing was lost" in Reader(render({**results, "backends": no_difference(results)}, ROWS, [])).text


def no_difference(results):
    backends = copy.deepcopy(results["backends"])
    backends["onnx"]["agreement"]["different_pixels"] = 0
    return backends


@pytest.mark.parametrize(
    ("first", "second", "verdict", "says"),
    [
        ("torch", "onnx", "cannot tell", "Whether PyTorch or ONNX Runtime is faster cannot be told from this look"),
        ("onnx", "torch", "faster", "ONNX Runtime took less time than PyTorch: 11.0 against 21.0 ms"),
        ("torch", "onnx", "faster", "PyTorch took less time than ONNX Runtime: 11.0 against 21.0 ms"),
    ],
)
def test_the_order_in_time(results, first, second, verdict, says):
    results["noise"]["reliable"] = True
    results["ranking"] = [{"first": first, "second": second, "ratio": {}, "verdict": verdict}]
    for name, median in ((first, 11.0), (second, 21.0)):
        results["backends"][name]["latency"]["total"]["median"] = median
    text = Reader(render(results, ROWS, [])).text
    assert says in text
    assert ("took less time" in text) == (verdict == "faster")


def test_an_unsteady_machine_ranks_nothing(results):
    results["noise"].update(reliable=False, reasons=["the reference loop took twice as long"])
    results["ranking"] = [{"first": "onnx", "second": "torch", "ratio": {}, "verdict": "faster"}]
    text = Reader(render(results, ROWS, [])).text
    assert "not steady (the reference loop took twice as long): these times rank nothing" in text
    assert "took less time" not in text


def test_a_class_without_a_score(results):
    for one in results["backends"].values():
        one["scores"]["classes"][1]["dice"] = None
    results["required"] = {}
    assert "–" in Reader(render(results, ROWS, [])).text


def test_curves_lie_inside_their_chart():
    classes = [[{"name": "a", "dice": 0.0}, {"name": "b", "dice": d}] for d in (0.1, 0.5, 0.81, 0.93)]
    training = {
        "loss": [{"epoch": e, "loss": 1 / e} for e in range(1, 5)],
        "validation": [{"epoch": e, "classes": c} for e, c in enumerate(classes, 1)],
    }
    loss, dice = curve_charts(training, ["red", "blue"], background=0)
    assert [line.name for line in dice.lines] == ["b"]
    assert dice.lines[0].color == "blue"
    points = np.array([[float(v) for v in point.split(",")] for point in loss.lines[0].points.split()])
    assert np.all(np.diff(points[:, 0]) > 0)
    assert np.all(np.diff(points[:, 1]) > 0)  # SVG counts downwards: the loss falls
    assert points.min() >= 0
    assert points[:, 0].max() <= loss.right
    assert points[:, 1].max() <= loss.bottom
    assert [text for _, text in dice.y_ticks][-1] == "1"


def test_one_epoch_is_a_curve_too():
    training = {"loss": [{"epoch": 1, "loss": 0.0}], "validation": []}
    (chart,) = curve_charts(training, [], None)
    assert chart.lines[0].points.count(",") == 1


def test_strips_start_at_zero():
    totals = {"a": {"p5": 1.0, "median": 2.0, "p95": 4.0, "samples": [1.0, 2.0, 4.0]}}
    (strip,), ticks = strip_chart(totals)
    assert ticks[0] == (0, "0")
    assert 0 < strip.p5 < strip.median < strip.p95
    assert strip.median == pytest.approx(2 * strip.p5, abs=0.02)
    assert len(strip.dots) == 3


@pytest.mark.slow
def test_a_browser_shows_it_well(demo):
    assert check_page(demo / "index.html") == []
