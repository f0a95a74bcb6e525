"""Faults in checkpoints: weights and statistics. Operations cannot differ, the architecture says what they are."""

from __future__ import annotations

import pytest

from .conftest import write

CONV = "up1.conv.double_conv.2"
KEY = "up1.conv.double_conv.3.weight"  # with batch norm between, the second convolution has this number


@pytest.mark.parametrize("reference", ["checkpoint", "onnx", "package"])
def test_changed_weights(files, edit_checkpoint, departs, reference):
    def change(weights):
        weights[KEY].view(-1)[::100] += 0.5

    layer, reason = departs(files(reference), edit_checkpoint(change))
    assert layer == CONV
    assert reason.startswith(f"{CONV} has other weights: ")


def test_all_weights_one_percent_larger(files, edit_checkpoint, departs):
    layer, reason = departs(files("onnx"), edit_checkpoint(lambda weights: weights[KEY].mul_(1.01)))
    assert (layer, reason) == (CONV, f"{CONV} has 1.01 times the reference's weights.")


def test_swapped_colour_channels(files, edit_checkpoint, departs):
    def change(weights):
        weights["inc.double_conv.0.weight"].copy_(weights["inc.double_conv.0.weight"].flip(1))

    layer, reason = departs(files("checkpoint"), edit_checkpoint(change))
    assert layer == "inc.double_conv.0"
    assert "takes BGR where the reference takes RGB" in reason


def test_other_statistics_of_batch_norm(files, edit_checkpoint, departs):
    layer, reason = departs(
        files("checkpoint"), edit_checkpoint(lambda weights: weights["inc.double_conv.4.running_mean"].add_(0.1))
    )
    assert layer == "inc.double_conv.2"
    assert reason.startswith("inc.double_conv.2 has other biases: 4 of 4 differ")


def test_an_upsampling_layer(files, edit_checkpoint, departs):
    layer, reason = departs(
        files("package", up="transposed"),
        edit_checkpoint(lambda weights: weights["up2.up.weight"][0, 0].add_(1), up="transposed"),
    )
    assert layer == "up2.up"
    assert reason.startswith("up2.up has other weights: 4 of ")


def test_nan(files, edit_checkpoint, departs):
    layer, reason = departs(
        files("checkpoint"), edit_checkpoint(lambda weights: weights["outc.conv.weight"][0].fill_(float("nan")))
    )
    assert layer == "outc.conv"
    assert "weights that are NaN or infinite" in reason


def test_other_image_preparation(files, departs, tmp_path):
    from unet_edge.checkpoint import read_checkpoint

    model = read_checkpoint(files("checkpoint")).build()
    other = write("checkpoint", model, tmp_path / "other", mean=(0.5, 0.5, 0.5), std=(0.5, 0.5, 0.5))
    layer, reason = departs(files("checkpoint"), other)
    assert layer == "input"
    assert reason.startswith("The input differs: mean is (0.5, 0.5, 0.5) for the candidate")
