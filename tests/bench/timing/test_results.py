from __future__ import annotations

import copy
import json
import re
import shutil

import jsonschema
import numpy as np
import pytest

from tests.bench.timing.conftest import SHORT
from unet_edge_bench.report.table import note_of
from unet_edge_bench.report.view import View
from unet_edge_bench.stats import median_interval, verdict
from unet_edge_bench.timing.benchmark import Listener, Order, benchmark, spread
from unet_edge_bench.timing.ceilings import measure_ceiling
from unet_edge_bench.timing.choices import Choices
from unet_edge_bench.timing.compare import compare_results, succeeded
from unet_edge_bench.timing.output import write_output
from unet_edge_bench.timing.results import rank
from unet_edge_bench.timing.row_data import total_turns
from unet_edge_bench.timing.schema import SCHEMA_FILE, read_results, schema_problems
from unet_edge_runtime.errors import BackendError, InputError
from unet_edge_runtime.files import sha256_of


@pytest.fixture(scope="module")
def results(files, pictures):
    """Of a real run: reference, good copy, other weights, a size that one does not take."""
    models = (files.checkpoint, files.onnx, files.other, files.fixed)
    images = sorted(pictures.images.iterdir())
    order = Order(
        Choices(models, sizes=((32, 48),), threads=(1,)),
        SHORT,
        tuple(images),
        tuple(pictures.masks / image.name for image in images),
        command="the command",
        ceiling_seconds=0.05,
        profile_runs=2,
    )
    return benchmark(order)


@pytest.fixture
def by_model(results):
    return {row["model"]: row for row in results["rows"]}


def test_they_follow_the_schema(results):
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(schema)
    again = json.loads(json.dumps(results, allow_nan=False))
    jsonschema.Draft202012Validator(schema).validate(again)
    assert list(schema_problems(again)) == []


def test_the_schema_describes_every_field():
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))

    def undescribed(part, where):
        for name, field in part.get("properties", {}).items():
            if "$ref" not in field:
                if not field.get("description"):
                    yield f"{where}.{name}"
                yield from undescribed(field, f"{where}.{name}")
            yield from undescribed(field.get("items", {}), f"{where}.{name}[]")

    assert list(undescribed(schema, "results")) == []
    assert [name for part in schema["$defs"] for name in undescribed(schema["$defs"][part], part)] == []


def test_no_field_is_left_out_of_the_schema(results):
    schema = json.loads(SCHEMA_FILE.read_text(encoding="utf-8"))
    assert set(results) == set(schema["properties"])
    fields = schema["$defs"]["row"]["properties"]
    for row in results["rows"]:
        assert set(row) == set(fields)
        for part in ("agreement", "scores"):
            assert set(row[part] or ()) <= set(fields[part]["properties"])


def test_a_row_says_what_it_is(by_model, files):
    row = by_model["model.onnx"]
    assert (row["format"], row["backend"], row["precision"], row["head"]) == ("onnx", "onnx", "fp32", "logits")
    assert (row["size"], row["batch"], row["threads"], row["streams"]) == ([32, 48], 1, 1, 1)
    assert row["sha256"] == sha256_of(files.onnx)
    assert row["bytes"] == files.onnx.stat().st_size
    assert by_model["model.pth"]["format"] == "checkpoint"


def test_statistics_follow_from_the_samples(by_model):
    row = by_model["model.onnx"]
    stages = row["samples_ms"].values()
    totals = np.sum([np.concatenate([turn for launch in stage for turn in launch]) for stage in stages], axis=0)
    total = row["statistics"]["total"]
    assert total["count"] == len(totals) >= 8
    assert total["p95"] == pytest.approx(np.percentile(totals, 95))
    turns = total_turns(row)
    assert total["median"] == pytest.approx(np.median(np.concatenate(turns)))
    assert total["low"] == median_interval(turns, 0).low
    rates = row["throughput"]
    each = np.concatenate(rates["images"]) / np.concatenate(rates["seconds"])
    assert rates["images_per_s"]["median"] == pytest.approx(np.median(each))


def test_a_fast_and_wrong_row_is_wrong_and_not_ranked(results, by_model):
    wrong = by_model["other.onnx"]
    assert wrong["status"] == "ok"
    assert wrong["statistics"]["total"]["median"] > 0
    assert not wrong["agreement"]["passed"]
    assert wrong["agreement"]["problems"]
    ids = {pair[side] for pair in results["ranking"] for side in ("first", "second")}
    assert ids == {by_model["model.pth"]["id"], by_model["model.onnx"]["id"]}


def test_agreement_and_scores(by_model):
    reference, good, other = (by_model[name] for name in ("model.pth", "model.onnx", "other.onnx"))
    assert reference["agreement"] is None
    assert good["agreement"]["reference"] == reference["id"]
    assert good["agreement"]["passed"]
    assert good["agreement"]["compared_images"] == 3
    assert good["scores"]["dice"] == pytest.approx(reference["scores"]["dice"], abs=1e-3)
    assert other["scores"]["dice"] != pytest.approx(reference["scores"]["dice"], abs=1e-3)


def test_a_size_that_is_not_taken_is_a_failed_row(by_model):
    row = by_model["fixed.onnx"]
    assert row["status"] == "failed"
    assert row["reason"] == "takes 48x64 only, not 32x48: export it with --size 32x48"
    assert row["statistics"] is None
    assert row["agreement"]["passed"]  # the model itself is right


def test_costs_and_limit(by_model):
    reference, good = by_model["model.pth"], by_model["model.onnx"]
    assert good["cost"]["macs"] == reference["cost"]["macs"] > 0
    inference = good["statistics"]["inference"]["median"]
    assert good["limit"]["share"] == pytest.approx(good["limit"]["ms"] / inference)
    assert sum(layer["macs"] for layer in good["layers"]) == good["cost"]["macs"]
    assert any(layer["ms"] for layer in good["layers"])


def test_what_is_not_counted_has_no_limit(files, pictures):
    """Several streams, a narrower type, an image that is cut into tiles."""
    models = (files.checkpoint, files.fixed, files.onnx)
    choices = Choices(models, threads=(1,), streams=(1, 2), precisions=("bf16",))
    order = Order(choices, SHORT, tuple(pictures.images.iterdir()), ceiling_seconds=0.05, profile_runs=0)
    half, half_streams, tiled, _, one, two = benchmark(order)["rows"]
    assert one["limit"]["ms"] > 0
    assert two["limit"] is None
    assert one["cost"] == two["cost"]
    assert half["limit"] is None
    assert half["cost"] == half_streams["cost"]
    assert half["cost"]["macs"] > 0
    assert tiled["status"] == "ok"
    assert tiled["cost"] is None
    assert tiled["limit"] is None


def test_what_cannot_be_measured_afterwards_takes_nothing_with_it(files, monkeypatch):
    looks = []

    def once(*given):
        if looks:
            raise BackendError("gave no answer")
        looks.append(measure_ceiling(*given))
        return looks[0]

    monkeypatch.setattr("unet_edge_bench.timing.benchmark.measure_ceiling", once)
    found = benchmark(Order(Choices((files.onnx,), threads=(1,)), SHORT, ceiling_seconds=0.05, profile_runs=0))
    assert found["rows"][0]["status"] == "ok"
    assert found["rows"][0]["limit"]["ms"] > 0
    assert "the machine's rates could not be measured after the run (gave no answer)" in found["noise"]["reasons"]


def test_an_image_that_is_left_out_is_told(files, pictures, tmp_path):
    shutil.copytree(pictures.images, tmp_path / "images")
    (tmp_path / "images" / "p2.png").write_bytes(b"no picture")
    images = tuple(sorted((tmp_path / "images").iterdir()))
    masks = tuple(pictures.masks / image.name for image in images)
    order = Order(
        Choices((files.checkpoint, files.onnx), threads=(1,)),
        SHORT,
        images,
        masks,
        ceiling_seconds=0.05,
        profile_runs=0,
    )
    said = []
    found = benchmark(order, Listener(said.append))
    reference, good = View(found).rows
    for row in (reference, good):
        assert note_of(row).startswith("1 image left out of agreement and scores: ")
        assert "p2.png" in note_of(row)
        assert any(row.data["model"] in line and "p2.png" in line for line in said)
    assert good.data["agreement"]["passed"]
    assert good.data["agreement"]["compared_images"] == 2


def test_images_and_origin(results):
    assert [image["name"] for image in results["images"]] == ["p0.png", "p1.png", "p2.png"]
    assert [image["timed"] for image in results["images"]] == [False, True, False]
    assert results["origin"] == "p1.png, 60x70"
    assert results["command"] == "the command"
    assert results["machine"]["physical_cores"] >= 1


def scaled(results, factor):
    """The same results with every duration multiplied."""
    other = copy.deepcopy(results)
    for row in other["rows"]:
        for launches in row["samples_ms"].values():
            launches[:] = [[[ms * factor for ms in turn] for turn in launch] for launch in launches]
        if row["statistics"]:
            row["statistics"]["total"]["median"] *= factor
    return other


def steady(results, seed=0, noise=0.01):
    """Results whose rows took 50 ms in every turn, but for some noise."""
    other = copy.deepcopy(results)
    generator = np.random.default_rng(seed)
    for row in other["rows"]:
        if row["status"] == "ok":
            for stage, launches in row["samples_ms"].items():
                middle = {"preprocess": 5, "inference": 40, "postprocess": 5}[stage]
                launches[:] = (middle * np.exp(generator.normal(0, noise, (5, 5, 4)))).tolist()
            row["statistics"]["total"]["median"] = 50.0
    return other


def test_a_slower_row_is_found_and_judged(results):
    base, new = steady(results), scaled(steady(results, 1), 1.1)
    found = compare_results(base, new, 0.05)
    row = next(row for row in found["rows"] if row["label"] == "model.onnx")
    assert row["ratio"]["median"] == pytest.approx(1.1, rel=0.02)
    assert (row["verdict"], row["failed"], found["failed"]) == ("slower", True, True)
    assert not compare_results(base, new, 0.2)["failed"]
    assert not compare_results(base, new)["failed"]
    words = {row["verdict"] for row in compare_results(new, base)["rows"]}
    assert words == {"faster", "failed in the base", "wrong in the base"}


def test_a_limit_must_be_surely_exceeded(results):
    base, new = steady(results, 0, 0.13), scaled(steady(results, 1, 0.13), 1.1)
    found = compare_results(base, new, 0.05)
    row = next(row for row in found["rows"] if row["label"] == "model.onnx")
    assert row["ratio"]["median"] > 1.05 > row["ratio"]["low"]
    assert not row["failed"]


def test_no_change_is_no_change(results):
    found = compare_results(steady(results), steady(results, 1), 0.0)
    assert {row["verdict"] for row in found["rows"]} == {"cannot tell", "failed in the base", "wrong in the base"}
    assert not found["failed"]


def test_rows_are_matched_by_what_they_are(results):
    base = steady(results)
    renamed = steady(results)
    for row in renamed["rows"]:
        row["id"] += " now"
        row["model"] = row["model"].replace("fixed", "frozen")
    found = compare_results(base, renamed)
    assert [(row["id"], row["base"]) for row in found["rows"]] == [
        (row["id"] + " now", row["id"]) for row in base["rows"]
    ]
    fewer = {**base, "rows": base["rows"][:1]}
    assert [row["verdict"] for row in compare_results(fewer, base)["rows"]][1:] == ["new: not in the base"] * 3
    assert compare_results(base, fewer)["missing"] == [row["label"] for row in base["rows"][1:]]


def test_a_row_that_fails_now_fails_the_comparison(results):
    base, new = steady(results), steady(results)
    new["rows"][0].update(status="failed", reason="crashed")
    assert compare_results(base, new, 0.05)["failed"]
    assert compare_results(base, new, 0.05)["rows"][0]["verdict"] == "failed in this run"
    assert not compare_results(new, base, 0.05)["failed"]


def test_so_does_one_that_cannot_even_be_opened(results):
    base, new = steady(results), steady(results)
    unknown = dict.fromkeys(("size", "image_size", "precision", "head"))
    new["rows"][1].update(
        status="failed", reason="damaged", agreement=None, id="another, for it has no size", **unknown
    )
    found = compare_results(base, new, 0.05)
    assert found["rows"][1]["verdict"] == "failed in this run"
    assert found["failed"]
    assert found["missing"] == []


def test_one_that_became_wrong_is_not_faster(results):
    base, new = steady(results), scaled(steady(results, 1), 0.5)
    assert compare_results(base, new, 0.05)["rows"][1]["verdict"] == "faster"
    new["rows"][1]["agreement"].update(passed=False, problems=["its labels differ"])
    found = compare_results(base, new, 0.05)
    assert found["rows"][1]["verdict"] == "wrong in this run"
    assert found["failed"]
    assert not compare_results(base, new)["failed"]


def test_two_models_of_one_name_are_matched_by_their_folders(results):
    rows = [{**steady(results)["rows"][1], "id": id, "label": id} for id in ("a/model.onnx", "b/model.onnx")]
    base, new = ({**results, "rows": order} for order in (rows, rows[::-1]))
    assert [(row["id"], row["base"]) for row in compare_results(base, new)["rows"]] == [
        ("b/model.onnx", "b/model.onnx"),
        ("a/model.onnx", "a/model.onnx"),
    ]


def test_other_machines_are_told(results):
    other = copy.deepcopy(results)
    other["machine"]["processor"] = "Abacus"
    other["machine"]["packages"]["numpy"] = "0.1"
    found = compare_results(other, results)["machine"]
    assert found[0].startswith("processor: Abacus before")
    assert found[1].startswith("numpy: 0.1 before")
    assert compare_results(results, results)["machine"] == []


def test_ranking_is_the_statistics_verdict(results):
    quick, slow = steady(results)["rows"][0], scaled(steady(results, 1), 1.2)["rows"][1]
    (pair,) = rank([slow, quick], 0)
    assert (pair["first"], pair["second"], pair["verdict"]) == (quick["id"], slow["id"], "faster")
    assert pair["ratio"]["median"] == pytest.approx(1 / 1.2, rel=0.02)
    assert verdict(total_turns(quick), total_turns(slow), 0)[0].to_dict() == pair["ratio"]
    assert rank([{**slow, "batch": 2}, quick], 0) == []
    assert rank([{**slow, "status": "failed"}, quick], 0) == []


def damage(change):
    def apply(data):
        change(data)
        return json.dumps(data)

    return apply


DAMAGES = {
    "half": (lambda data: json.dumps(data)[:1000], "is no JSON"),
    "empty": (lambda data: "", "is no JSON"),
    "another thing": (lambda data: "[1, 2]", "these are no results of"),
    "another version": (damage(lambda data: data.update(schema="unet-edge-benchmark/9")), "its schema is 'unet-edge-b"),
    "no rows": (damage(lambda data: data.pop("rows")), r"is damaged \(results has no rows\)"),
    "rows are no list": (damage(lambda data: data.update(rows=3)), r"results\.rows is no array"),
    "a text for a time": (
        damage(lambda data: data["rows"][0]["samples_ms"]["inference"][0][0].append("x")),
        r"results\.rows\[0\]\.samples_ms\.inference\[0\]\[0\]\[\d+\] is no number",
    ),
    "NaN": (
        damage(lambda data: data["rows"][0]["samples_ms"]["inference"][0][0].append(float("nan"))),
        r"inference\[0\]\[0\]\[\d+\] is no number",
    ),
    "no time": (
        damage(lambda data: data["rows"][0]["samples_ms"]["inference"][0][0].append(0)),
        r"inference\[0\]\[0\]\[\d+\] is not above 0",
    ),
    "stages of different lengths": (
        damage(lambda data: data["rows"][0]["samples_ms"]["inference"][0][0].append(1.0)),
        r"rows\[0\]\.samples_ms has stages of different lengths",
    ),
    "markup for a bound": (
        damage(lambda data: data["rows"][0]["layers"][0].update(bound='"><script>')),
        r"layers\[0\]\.bound is none of compute, memory",
    ),
    "an unknown status": (damage(lambda data: data["rows"][1].update(status="great")), r"status is none of ok, failed"),
    "deep": (lambda data: "[" * 100000, "is no JSON"),
}


@pytest.mark.parametrize(("spoil", "reason"), DAMAGES.values(), ids=DAMAGES)
def test_damaged_results_are_refused_in_one_line(results, tmp_path, spoil, reason):
    path = tmp_path / "results.json"
    path.write_text(spoil(copy.deepcopy(results)))
    with pytest.raises(InputError) as caught:
        read_results(path)
    assert re.search(reason, str(caught.value))
    assert str(caught.value).startswith(str(path))
    assert "\n" not in str(caught.value)


def test_results_are_read_from_file_or_folder(results, tmp_path):
    (tmp_path / "results.json").write_text(json.dumps(results))
    assert read_results(tmp_path)["rows"] == read_results(tmp_path / "results.json")["rows"]
    with pytest.raises(InputError, match="cannot be read"):
        read_results(tmp_path / "none.json")


def test_a_spread():
    assert spread(range(100), 4) == [0, 25, 50, 75]
    assert spread("ab", 4) == [0, 1]
    assert spread("", 4) == []


def test_earlier_results_are_kept(results, tmp_path):
    """A second run in the same folder must not cost the first one's hours."""
    write_output({**results, "created": "2026-01-02T03:04:05+00:00"}, tmp_path)
    write_output(results, tmp_path)
    assert read_results(tmp_path / "results-20260102T030405.json")["created"].startswith("2026-01-02")
    assert read_results(tmp_path / "results.json")["created"] == results["created"]


@pytest.mark.parametrize("what", ["wrong", "failed"])
def test_a_wrong_or_unusable_model_is_no_success(results, what):
    spoilt = copy.deepcopy(results)
    spoilt["rows"] = [row for row in spoilt["rows"] if row["status"] == "ok" and not _is_wrong(row)]
    assert succeeded(spoilt, None)
    agreeing = [row for row in spoilt["rows"] if row["agreement"]]
    if what == "wrong":
        agreeing[0]["agreement"]["passed"] = False
    else:
        for row in spoilt["rows"]:
            if row["model"] == agreeing[0]["model"]:
                row.update(status="failed", reason="damaged")
    assert not succeeded(spoilt, None)


def _is_wrong(row):
    return row["agreement"] is not None and not row["agreement"]["passed"]
