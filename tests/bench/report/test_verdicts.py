from __future__ import annotations

import pytest

from tests.bench.report import sample
from unet_edge_bench.report.verdicts import duels, headline, sentences, unbeaten
from unet_edge_bench.report.view import View


def run(*medians, agree=True, size=(320, 480)):
    """Results of rows a, b, c, ... with these medians."""
    rows = [sample.row(name, name, "onnx", "onnx", 2, size, ms, seed) for seed, (name, ms) in enumerate(medians)]
    for row in rows:
        row["agreement"] = None if agree else sample.agreement(False, ["its labels differ"])
    return sample.results(rows=rows, ranking=sample.ranking(rows))


def said(results):
    head = headline(View(results))
    return head.title, " ".join(text for _, text in head.lead)


def test_the_fastest_is_named_with_its_lead_over_the_next_and_the_last():
    title, lead = said(run(("a", 90.0), ("b", 60.0), ("c", 180.0)))
    assert title == "b is the fastest"
    assert lead.startswith("b is the fastest with ")
    assert lead.index("times as fast as a") < lead.index("times as fast as c")
    assert "1.5" in lead


def test_what_cannot_be_told_is_not_told():
    title, lead = said(run(("a", 60.0), ("b", 60.1), ("c", 180.0)))
    assert title in ("Too close to call: a or b", "Too close to call: b or a")
    assert lead.startswith("It cannot be told which of ")
    assert "is the fastest with" not in lead
    assert lead.endswith("Slower than at least one of them: c.")


def test_nobody_wins_without_a_comparison():
    results = {**run(("a", 60.0), ("b", 180.0)), "ranking": []}
    assert said(results)[0].startswith("Too close to call")


def test_a_wrong_row_never_wins():
    results = run(("a", 60.0), ("b", 180.0))
    results["rows"][0]["agreement"] = sample.agreement(False, ["its labels differ"])
    results["ranking"] = sample.ranking(results["rows"])
    title, lead = said(results)
    assert title.startswith("b: 18")
    assert "a is" not in lead


def test_nothing_right_or_nothing_timed():
    assert said(run(("a", 60.0), agree=False)) == (
        "Fast, but wrong",
        "Nothing was timed that agrees with the reference.",
    )
    stopped = sample.results(rows=[sample.stopped("f", "f", "failed", "broken")], ranking=[])
    assert said(stopped) == ("Nothing could be timed", "Nothing could be timed.")


def test_an_unsteady_machine_is_the_headline():
    assert said(sample.results(noise=sample.noise(drift=0.12)))[0].startswith("The machine was not steady")


def test_sizes_are_judged_apart(results):
    view = View(results)
    assert [group.title for group in view.groups] == ["320 × 480", "640 × 960"]
    known = duels(view)
    assert [[row.id for row in unbeaten(group, known)] for group in view.groups] == [
        ["onnx2-small", "twin-small"],
        ["onnx2-large"],
    ]
    assert headline(view).title == "Nothing beats best.onnx, 2 threads"


def test_batches_and_streams_are_other_work():
    rows = [sample.row(name, name, "onnx", "onnx", 2, (320, 480), 60.0, 1) for name in "abc"]
    rows[1]["batch"], rows[2]["streams"] = 4, 2
    view = View(sample.results(rows=rows, ranking=[]))
    titles = ["320 × 480, batch 1, 1 stream", "320 × 480, batch 4, 1 stream", "320 × 480, batch 1, 2 streams"]
    assert [group.title for group in view.groups] == titles
    assert [group.unit for group in view.groups] == ["image", "batch", "image"]


@pytest.mark.parametrize(("first", "second"), [(60.0, 120.0), (120.0, 60.0)])
def test_a_ratio_is_told_from_the_faster_side(first, second):
    view = View(run(("a", first), ("b", second)))
    quick, slow = ("a", "b") if first < second else ("b", "a")
    known = duels(view)
    assert known[quick, slow].verdict == "faster"
    assert known[slow, quick].verdict == "slower"
    assert known[quick, slow].ratio["median"] == pytest.approx(2, rel=0.1)
    assert known[quick, slow].ratio["low"] < known[quick, slow].ratio["median"] < known[quick, slow].ratio["high"]
    (line,) = sentences(view.groups[0], known)
    assert line.startswith(f"{quick} is ")
    assert line.endswith(f"times as fast as {slow}")
