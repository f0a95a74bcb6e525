"""Padding is not judged, images that cannot be used end nothing, and a board without torch can compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from tests.layers.test_layers import BLOCK, ROOT
from unet_edge_bench.verify import Model, Overrides, Recording, SavedOutputs, compare, samples_of
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.tolerance import FP16, FP32, LEAST_DICE

from .conftest import LAYER, one_percent


def test_a_fixed_size_is_judged_without_its_padding(checkpoint, fixed_onnx, samples):
    reference, fixed = Model.open(checkpoint), Model.open(fixed_onnx)
    report = compare(reference, [fixed], samples).pairs[0]
    assert report.passed, report.problems
    assert report.notes == ["both padded or tiled to 64x96, the fixed input size: 3 of 3 images"]
    # What would have been judged otherwise: by itself the reference pads to 48x64.
    naturally, alike = (side.output(samples[0]).values for side in (reference, reference.like(fixed.spec)))
    assert np.abs(naturally - alike).max() > 1e-2
    assert reference.spec.input_size is None


def test_either_side_may_be_the_fixed_one(checkpoint, fixed_onnx, samples):
    assert compare(Model.open(fixed_onnx), [Model.open(checkpoint)], samples).passed


def test_several_candidates_each_have_their_own_reference(checkpoint, onnx_file, fixed_onnx, samples, tmp_path):
    sides = [Recording(Model.open(path), tmp_path / path.name) for path in (checkpoint, onnx_file, fixed_onnx)]
    result = compare(sides[0], sides[1:], samples)
    assert [pair.passed for pair in result.pairs] == [True, True]
    folders = sorted(path.name for path in tmp_path.iterdir())
    assert folders == ["fixed.onnx", "net.onnx", "net.pth", "net.pth-64x96"]
    again = compare(SavedOutputs(tmp_path / "net.pth-64x96"), [SavedOutputs(tmp_path / "fixed.onnx")], samples)
    assert again.pairs[0].measured == result.pairs[1].measured
    other = compare(SavedOutputs(tmp_path / "net.pth"), [SavedOutputs(tmp_path / "fixed.onnx")], samples)
    assert "input sizes differ (any and 64x96)" in other.pairs[0].notes[0]
    assert not other.passed


def test_no_padding_is_mentioned_where_it_is_the_same(checkpoint, tmp_path, samples):
    from unet_edge_export import export_model

    exact = export_model(checkpoint, "onnx", tmp_path / "exact.onnx", size=(48, 64)).path
    assert compare(Model.open(checkpoint), [Model.open(exact)], samples).pairs[0].notes == []


def test_an_unreadable_image_is_told_and_left_out(checkpoint, onnx_file, samples, tmp_path):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no picture")
    mixed = [samples[0], *samples_of([broken, tmp_path / "absent.png"]), samples[1]]
    result = compare(Model.open(checkpoint), [Model.open(onnx_file)], mixed)
    assert result.images == 2
    assert [pair.passed for pair in result.pairs] == [True]
    assert not result.passed
    assert len(result.failures) == 2
    assert "broken.png: not an image" in result.failures[0]
    with pytest.raises(InputError, match=r"no image could be compared: .*broken"):
        compare(Model.open(checkpoint), [Model.open(onnx_file)], mixed[1:2])


def test_what_a_candidate_cannot_run_is_its_failure_alone(checkpoint, onnx_file, samples, tmp_path):
    from unet_edge_export import export_model

    small = export_model(checkpoint, "onnx", tmp_path / "small.onnx", size=(32, 32), head="classmap").path
    result = compare(Model.open(checkpoint), [Model.open(onnx_file), Model.open(small)], samples)
    assert [pair.passed for pair in result.pairs] == [True, False]
    assert result.pairs[1].problems == ["no image could be run"]
    assert "export with --head logits" in result.pairs[1].failures[0]
    assert result.failures == []


def test_labels_only_of_a_class_map(checkpoint, samples, tmp_path):
    from unet_edge_export import export_model

    path = export_model(checkpoint, "onnx", tmp_path / "map.onnx", size=(64, 96), head="classmap").path
    report = compare(Model.open(checkpoint), [Model.open(path)], samples).pairs[0]
    assert report.passed, report.problems
    assert report.kind == "labels"
    assert report.measured["max_difference"] is None
    backwards = compare(Model.open(path), [Model.open(checkpoint)], samples).pairs[0]
    assert backwards.measured["flips"] is None or not backwards.measured["flipped"]


def test_each_side_is_scored(checkpoint, onnx_file, samples):
    scores = compare(Model.open(checkpoint), [Model.open(onnx_file)], samples).pairs[0].scores
    assert scores["reference"]["dice"] == pytest.approx(scores["candidate"]["dice"], abs=1e-3)
    assert scores["difference"]["images"] == 3


def test_tolerances_follow_precision_and_compression(checkpoint, spoil_checkpoint, samples):
    def tolerance(**changes):
        path = spoil_checkpoint(None, **changes)
        return compare(Model.open(checkpoint), [Model.open(path)], samples[:1]).pairs[0].tolerance

    assert tolerance().equal_labels == FP32.equal_labels
    assert tolerance(precision="fp16").equal_labels == FP16.equal_labels
    assert tolerance(precision="mixed").equal_labels == FP16.equal_labels
    small = tolerance(precision="fp16", provenance={"compression": {"name": "palette4"}})
    assert (small.least_dice, small.max_logit_difference) == (LEAST_DICE["palette4"], float("inf"))


def test_tolerances_can_be_replaced(checkpoint, onnx_file, samples):
    def passes(**bounds):
        return compare(Model.open(checkpoint), [Model.open(onnx_file)], samples, Overrides(**bounds)).passed

    assert passes()
    assert not passes(max_difference=0.0)
    assert passes(dice=1.0, equal_labels=1.0)


def test_the_worst_image_comes_first(checkpoint, spoil_checkpoint, samples):
    path = spoil_checkpoint(lambda network: network.outc.conv.weight.mul_(1.2))
    images = compare(Model.open(checkpoint), [Model.open(path)], samples).pairs[0].images
    counts = [(image.measured["flips"]["sure"], image.measured["flipped"]) for image in images]
    assert counts == sorted(counts, reverse=True)
    assert counts[0] > counts[-1]


def test_results_are_valid_json(checkpoint, spoil_checkpoint, samples):
    path = spoil_checkpoint(lambda network: network.outc.conv.weight.mul_(float("nan")))
    text = json.dumps(compare(Model.open(checkpoint), [Model.open(path)], samples).to_dict(), allow_nan=False)
    assert json.loads(text)["pairs"][0]["images"][0]["not_finite"]["candidate"] > 0


def test_on_a_board(onnx_file, fixed_onnx, spoil_onnx, samples):
    """Without torch, onnx, click and jinja2, and without the floors that need them."""
    blocked = {"torch", "onnx", "onnxscript", "coremltools", "click", "jinja2", "unet_edge", "unet_edge_export"}
    files = [onnx_file, fixed_onnx, spoil_onnx(LAYER, one_percent)]
    code = f"""
from pathlib import Path
from unet_edge_bench.verify import Model, compare, samples_of
from unet_edge_bench.verify.text import text
photos = samples_of([Path(name) for name in {[str(sample.image) for sample in samples]!r}])
reference, *candidates = [Model.open(Path(name)) for name in {[str(path) for path in files]!r}]
print(text(compare(reference, candidates, photos)))
"""
    paths = os.pathsep.join(str(ROOT / folder) for folder in ("runtime", "benchmarks"))
    done = subprocess.run(
        [sys.executable, "-c", BLOCK.format(blocked=blocked) + code],
        capture_output=True,
        text=True,
        check=False,
        env={**os.environ, "PYTHONPATH": paths},
        cwd=onnx_file.parent,
    )
    assert "PASS  fixed.onnx and net.onnx are identical on 3 images" in done.stdout, done.stderr
    assert "FAIL  spoilt.onnx and net.onnx do not agree: largest difference" in done.stdout
    assert "because " in done.stdout


def test_the_bound_grows_with_the_outputs(checkpoint, spoil_checkpoint, samples):
    path = spoil_checkpoint(lambda network: [p.mul_(100) for p in network.outc.conv.parameters()])
    small, large = (
        compare(Model.open(one), [Model.open(one)], samples).pairs[0].tolerance.max_logit_difference
        for one in (checkpoint, path)
    )
    assert FP32.max_logit_difference <= small < large / 20


def test_nothing_compared_is_no_pass(checkpoint, samples):
    assert not compare(Model.open(checkpoint), [], samples).passed


def test_equal_labels_are_not_called_identical_models(checkpoint, samples, tmp_path):
    from unet_edge_bench.verify.text import text
    from unet_edge_export import export_model

    path = export_model(checkpoint, "onnx", tmp_path / "map.onnx", size=(64, 96), head="classmap").path
    result = compare(Model.open(checkpoint), [Model.open(path)], samples)
    assert result.pairs[0].measured["identical"]
    assert text(result).splitlines()[-1] == "PASS  map.onnx and net.pth agree on 3 images"


@pytest.mark.parametrize("bound", ["max_difference", "equal_labels", "dice"])
def test_a_bound_that_nothing_exceeds_is_refused(bound):
    with pytest.raises(InputError, match="a tolerance is NaN"):
        Overrides(**{bound: float("nan")})


def test_tiles_of_probabilities_are_judged_like_with_like(checkpoint, samples, tmp_path):
    """A mean of probabilities is not the probability of the mean logit."""
    from unet_edge_export import export_model

    path = export_model(checkpoint, "onnx", tmp_path / "p.onnx", size=(32, 32), head="probabilities").path
    sides = Model.open(checkpoint), Model.open(path)
    for reference, candidate in (sides, sides[::-1]):
        report = compare(reference, [candidate], samples).pairs[0]
        assert report.passed, report.problems
        assert report.kind == "probabilities"
        assert report.measured["max_difference"] > 0
    recording = Recording(sides[0], tmp_path / "saved")
    assert compare(recording, sides[1:], samples).passed
    assert (tmp_path / "saved-32x32-probabilities").is_dir()
