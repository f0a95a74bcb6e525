from __future__ import annotations

import json
import re
import sys
from html.parser import HTMLParser

import jsonschema
import pytest

from tests.bench.report import sample
from tests.browser import check_page
from unet_edge_bench import report
from unet_edge_bench.timing.schema import SCHEMA_FILE
from unet_edge_runtime.errors import InputError, MissingExtraError

NASTY = '<script>alert("&")</script>'
FIGURES = ["latency", "results", "ranking", "pareto-latency", "pareto-size", "stages", "startup", "roofline", "layers",
           "agreement", "noise"]  # fmt: skip


class Reader(HTMLParser):
    """Collects tags, addresses, figures and text, and sees that every element is closed."""

    VOID = frozenset({"meta", "link", "br", "line", "circle", "rect", "path"})

    def __init__(self, page):
        super().__init__()
        self.tags, self.addresses, self.figures, self.open, self.text = [], [], [], [], ""
        self.feed(page)
        assert self.open == []
        self.text = re.sub(r"\s+", " ", self.text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)
        attributes = dict(attrs)
        self.addresses += [attributes[name] for name in ("src", "href", "action", "data") if name in attributes]
        if tag == "figure":
            self.figures.append(attributes["id"])
        if tag == "svg":
            assert attributes["role"] == "img"
            assert attributes["aria-label"]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attrs):
        self.tags.append(tag)

    def handle_endtag(self, tag):
        if tag in self.open:
            while (last := self.open.pop()) != tag:
                assert last in self.VOID

    def handle_data(self, data):
        if self.open and self.open[-1] not in {"style", "title"}:
            self.text += " " + data.strip()


def with_plan(results):
    """The Core ML row as a Mac would have it."""
    plan = {
        "compute_units": "ane",
        "devices": {"ane": {"operations": 40, "cost_share": 0.97}, "cpu": {"operations": 2, "cost_share": 0.03}},
        "operations": [],
    }
    results["rows"][-1]["plan"] = plan
    return results


def test_the_sample_is_what_the_benchmark_writes(results):
    jsonschema.validate(results, json.loads(SCHEMA_FILE.read_text(encoding="utf-8")))


def test_every_figure_is_there(results):
    reader = Reader(report.render(results))
    assert sorted(reader.figures) == sorted(FIGURES)
    assert "figcaption" in reader.tags


def test_everything_is_inside(results):
    page = report.render(results)
    reader = Reader(page)
    assert reader.addresses == ["data:,", "results.json"]
    assert not {"script", "iframe", "object", "embed", "img"} & set(reader.tags)
    assert "default-src 'none'" in page
    assert re.findall(r"url\((?!#)|@import|://", page) == []


def test_it_shows_what_was_measured(results):
    text = Reader(report.render(results)).text
    total = results["rows"][2]["statistics"]["total"]
    assert f"{total['median']:.1f}" in text
    assert f"{total['low']:.1f}–{total['high']:.1f}" in text
    for said in ("31,204 of 2,457,600 labels differ", "it takes 320x480 only, not 640x960",
                 "Core ML runs on macOS only",
                 "Nothing beats best.onnx, 2 threads", "cannot tell", "5 of 6", "AMD EPYC, 2 cores, 24 GiB, Linux",
                 "onnxruntime 1.32.0", results["command"], "5 launches", "141 GFLOP/s", "Most time above the limit",
                 "7 of 35 processes never did"):  # fmt: skip
        assert said in text, said


def test_the_references_own_file_is_the_reference_with_any_threads(results):
    badge = '<span class="badge plain">reference</span>'
    assert report.render(results).count(badge) == 2  # at both sizes, though it was compared at one
    results["rows"][5]["sha256"] = "f" * 64
    assert report.render(results).count(badge) == 1


def test_why_a_limit_can_be_passed_is_said(results):
    results["rows"][2]["limit"]["note"] = "above 100 % of the limit: Winograd's algorithm multiplies less"
    assert "Above 100 % of the limit: Winograd's algorithm multiplies less." in Reader(report.render(results)).text


def test_an_unreliable_run_says_so_loudly():
    page = report.render(sample.results(noise=sample.noise(drift=0.12)))
    assert 'class="loud" role="alert"' in page
    assert "12% longer after the run than before" in page
    assert "The machine was steady" not in page
    assert 'class="loud"' not in report.render(sample.results())


def test_an_interrupted_run_says_so(results):
    assert "stopped before its end" not in report.render(results)
    assert "stopped before its end" in report.render({**results, "complete": False})


def test_the_plan_of_a_mac(results):
    reader = Reader(report.render(with_plan(results)))
    assert "plan" in reader.figures
    assert "Neural Engine" in reader.text
    assert "of the cost" in reader.text


def test_names_are_escaped(results):
    for row in results["rows"]:
        row["label"] = row["model"] = NASTY
        row["reason"] = row["reason"] and NASTY
        for layer in row["layers"] or []:
            layer["name"] = layer["kind"] = layer["bound"] = NASTY
        if row["agreement"]:
            row["agreement"]["problems"] = [NASTY]
    results["command"] = results["origin"] = results["machine"]["processor"] = results["noise"]["what"] = NASTY
    page = report.render(results)
    assert NASTY not in page
    assert "script" not in Reader(page).tags
    assert NASTY in Reader(page).text


VARIANTS = {
    "whole": with_plan,
    "unreliable": lambda r: {**r, "noise": sample.noise(drift=0.12)},
    "one row": lambda r: {**r, "rows": r["rows"][2:3], "ranking": []},
    "all failed": lambda r: {**r, "rows": r["rows"][7:8], "ranking": []},
    "nothing but times": lambda r: {
        **r,
        "rows": [{**row, **dict.fromkeys(("scores", "layers", "agreement", "cost", "limit"))} for row in r["rows"]],
        "ceilings": [],
        "ranking": [],
    },
    "long names": lambda r: {
        **r,
        "rows": [
            {**row, "label": f"{row['id']} of a folder-with-a-long-name/and-a-long-file-name.onnx"} for row in r["rows"]
        ],
    },
}


@pytest.mark.parametrize("change", VARIANTS.values(), ids=VARIANTS)
def test_a_browser_finds_nothing_wrong(results, tmp_path, change):
    page = report.write_html(change(results), tmp_path / "index.html")
    assert check_page(page) == []


def test_parts_that_are_missing_have_no_section(results):
    figures = Reader(report.render(VARIANTS["nothing but times"](results))).figures
    assert figures == ["latency", "results", "ranking", "stages", "startup", "noise"]
    failed = Reader(report.render(VARIANTS["all failed"](results)))
    assert "results" in failed.figures
    assert "latency" not in failed.figures
    assert "it takes 320x480 only" in failed.text


def test_what_is_there_is_not_replaced_by_half_a_page(results, tmp_path):
    (tmp_path / "index").mkdir()
    with pytest.raises(InputError, match="it is a folder"):
        report.write_html(results, tmp_path / "index")
    page = tmp_path / "index.html"
    page.write_text("old")
    with pytest.raises(KeyError):
        report.write_html({"rows": []}, page)
    assert page.read_text() == "old"
    assert [path.name for path in tmp_path.iterdir() if path.is_file()] == ["index.html"]


def test_without_jinja2_the_page_says_what_to_install(results, monkeypatch):
    monkeypatch.setitem(sys.modules, "jinja2", None)
    with pytest.raises(MissingExtraError, match=r"needs jinja2: pip install 'unet-edge\[train\]'"):
        report.render(results)
