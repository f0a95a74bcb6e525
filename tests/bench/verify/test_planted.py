"""Faults that were planted are found, and named as a person would name them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unet_edge_bench.verify import Model, compare, samples_of
from unet_edge_export import export_model

from .conftest import IMAGENET, LAYER, one_percent

FIRST = "inc.double_conv.0"


def edit_weights(layer, edit):
    """An edit of a network in memory that is the same as that of a file's weights."""

    def apply(network):
        weight = network.get_submodule(layer).weight
        weight.copy_(torch.from_numpy(np.ascontiguousarray(edit(weight.numpy()))))

    return apply


@pytest.fixture(params=["checkpoint", "onnx"])
def spoil(request, spoil_checkpoint, spoil_onnx):
    """A function (layer, edit of its weights, **changes of the spec) -> a file, for each format."""

    def spoilt(layer=None, edit=None, **changes):
        if request.param == "onnx":
            return spoil_onnx(layer, edit, **changes)
        return spoil_checkpoint(edit_weights(layer, edit) if layer else None, **changes)

    return spoilt


def reasons(report):
    assert not report.passed
    return "; ".join(report.reasons)


def test_a_model_agrees_with_itself(judge, checkpoint, onnx_file):
    for path in (checkpoint, onnx_file):
        report = judge(path, path)
        assert report.passed
        assert report.measured["identical"]
        assert (report.measured["max_difference"], report.measured["snr_db"]) == (0, None)


def test_an_export_agrees(judge, onnx_file):
    report = judge(onnx_file)
    assert report.passed, report.problems
    assert report.measured["snr_db"] > 100
    assert report.reasons == []


def test_the_weights_of_a_layer(judge, spoil):
    assert f"{LAYER} has other weights" in reasons(judge(spoil(LAYER, one_percent)))


def test_a_layer_that_is_one_percent_too_large(judge, spoil):
    found = reasons(judge(spoil(LAYER, lambda weights: weights * 1.01)))
    assert f"{LAYER} has 1.01 times" in found


def test_bgr_for_rgb(judge, spoil):
    found = reasons(judge(spoil(FIRST, lambda weights: weights[:, ::-1])))
    assert found == "it takes BGR, not RGB: it agrees when the colour channels are reversed"


def test_another_normalisation(judge, spoil):
    found = reasons(judge(spoil(**IMAGENET)))
    assert "normalisation with mean 0.485" in found
    assert "instead of no normalisation" in found
    assert "they agree" in found


def test_a_network_that_takes_0_to_255(judge, spoil):
    assert "values of 0 to 255" in reasons(judge(spoil(FIRST, lambda weights: weights / 255)))


def test_another_scale(judge, spoil):
    report = judge(spoil(scale=0.75))
    assert "scale 0.75 instead of scale 1" in reasons(report)
    assert report.kind == "labels"


def test_outputs_in_another_order(judge, spoil_checkpoint):
    def permute(network):
        for value in (network.outc.conv.weight, network.outc.conv.bias):
            value.copy_(value[[2, 0, 1]].clone())

    found = reasons(judge(spoil_checkpoint(permute)))
    assert "another order" in found
    assert "class 0 is its output 1" in found


def test_classes_listed_in_another_order(judge, spoil, spec):
    report = judge(spoil(classes=spec.classes[::-1]))
    assert "mask values 255, 100, 0 instead of 0, 100, 255" in "; ".join(report.problems)
    assert "stand for other classes" in reasons(report)


def test_other_classes_are_not_compared(judge, spoil, spec, checkpoint, small_checkpoint):
    report = judge(small_checkpoint)
    assert not report.passed
    assert report.problems == ["it has 2 classes, the reference 3: not the same task"]


def test_another_threshold(pairs, small_checkpoint, tmp_path):
    from unet_edge.checkpoint import load_model, save_checkpoint

    network, spec = load_model(small_checkpoint)
    path = tmp_path / "eager.pth"
    save_checkpoint(path, network, spec.replace(threshold=0.2), {})
    drawn = samples_of(sorted(pairs[0].iterdir()))
    report = compare(Model.open(small_checkpoint), [Model.open(path)], drawn).pairs[0]
    assert "threshold 0.2 instead of 0.5; the outputs agree" in reasons(report)
    assert report.measured["max_difference"] == 0


def test_nan(judge, spoil):
    def damage(weights):
        damaged = weights.copy()
        damaged[0] = np.nan
        return damaged

    report = judge(spoil("outc.conv", damage))
    assert report.problems == ["the candidate returned NaN or infinite values"]
    assert "3 of 3 images" in reasons(report)
    assert report.measured["max_difference"] is None
    assert report.measured["not_finite"]["candidate"] > 0


def test_a_reference_with_nan_is_no_reference(judge, spoil, checkpoint):
    spoilt = spoil("outc.conv", lambda weights: weights * np.nan)
    assert judge(checkpoint, spoilt).problems == ["the reference returned NaN or infinite values"]


def test_core_ml_packages(judge, checkpoint, spoil_checkpoint, tmp_path):
    good = export_model(checkpoint, "coreml", tmp_path / "good.mlpackage", size=(48, 64), precision="fp32").path
    assert judge(good).passed
    swapped = spoil_checkpoint(edit_weights(FIRST, lambda weights: weights[:, ::-1]))
    bad = export_model(swapped, "coreml", tmp_path / "bad.mlpackage", size=(48, 64), precision="fp32").path
    report = judge(bad)
    assert "takes BGR" in reasons(report)
    assert report.to_dict()["candidate"]["proves"]


def test_an_undecided_network_is_called_so(judge, spoil):
    report = judge(spoil(LAYER, lambda weights: weights * 1.01), max_difference=10.0, equal_labels=1.0)
    assert report.measured["flipped"] > 1
    assert report.measured["flips"]["sure"] == 0
    assert "flip only where the reference was undecided" in reasons(report)
    assert "%" in report.problems[0]


def test_a_threshold_does_not_excuse_other_outputs(pairs, small_checkpoint, tmp_path):
    from unet_edge.checkpoint import load_model, save_checkpoint

    network, spec = load_model(small_checkpoint)
    with torch.no_grad():
        network.outc.conv.bias += 1  # of both classes: the labels do not change
    path = tmp_path / "eager.pth"
    save_checkpoint(path, network, spec.replace(threshold=0.2), {})
    drawn = samples_of(sorted(pairs[0].iterdir()))
    report = compare(Model.open(small_checkpoint), [Model.open(path)], drawn).pairs[0]
    assert "the outputs agree" not in reasons(report)
    assert "outc.conv has other biases" in reasons(report)


def test_a_second_fault_is_not_passed_over(judge, spoil_checkpoint):
    def damage(network):
        edit_weights(FIRST, lambda weights: weights[:, ::-1])(network)
        network.outc.conv.bias += 0.05

    found = reasons(judge(spoil_checkpoint(damage)))
    assert found.startswith("it takes BGR, not RGB: it agrees when the colour channels are reversed")
    assert found.endswith("(nearly: something smaller differs as well)")


def test_a_layer_without_weights(judge, spoil):
    found = reasons(judge(spoil(LAYER, lambda weights: weights * 0)))
    assert f"{LAYER} has other weights" in found
