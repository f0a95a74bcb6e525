"""Faults planted in Core ML packages: the layer and the cause are named."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from .conftest import LOUD, loud_model, write

CONV = "down2.maxpool_conv.1.double_conv.0"


def test_the_copy_that_is_edited_is_right_before(files, edit_package, departs):
    assert departs(files("checkpoint"), edit_package().save()) == (None, "")


@pytest.mark.parametrize("format", ["checkpoint", "onnx"])
def test_one_percent_of_one_layer_s_weights(files, edit_package, departs, format):
    editor = edit_package()
    weight = editor.blob(f"{CONV}.weight").reshape(-1)
    weight[::100] += 0.5 * np.abs(weight).max()
    weight.base.flush()
    layer, reason = departs(files(format), editor.save())
    assert layer == CONV
    assert reason.startswith(f"{CONV} has other weights: {len(weight[::100])} of {weight.size} differ")


def test_all_weights_one_percent_larger(files, edit_package, departs):
    editor = edit_package()
    weight = editor.blob(f"{CONV}.weight")
    weight[:] = weight.astype(np.float32) * 1.01
    weight.flush()
    layer, reason = departs(files("checkpoint"), editor.save())
    assert layer == CONV
    factor = float(reason.removeprefix(f"{CONV} has ").removesuffix(" times the reference's weights."))
    assert factor == pytest.approx(1.01, abs=1e-4)


def test_a_weight_of_the_first_layers_in_their_own_scale(files, edit_package, departs):
    """Their weights hold the pixels' 1/255, which is no fault; a changed one is."""
    editor = edit_package()
    weight = editor.blob("inc.double_conv.0.weight")
    weight[1, 1, 1, 1] *= -1.5
    weight.flush()
    layer, reason = departs(files("checkpoint"), editor.save())
    assert layer == "inc.double_conv.0"
    assert reason.startswith("inc.double_conv.0 has other weights: 1 of 108 differs")


def test_swapped_colour_channels_in_the_weights(files, edit_package, departs):
    editor = edit_package()
    weight = editor.blob("inc.double_conv.0.weight")
    weight[:] = weight[:, ::-1].copy()
    weight.flush()
    layer, reason = departs(files("checkpoint"), editor.save())
    assert layer == "inc.double_conv.0"
    assert "takes BGR where the reference takes RGB" in reason


def test_swapped_colour_channels_in_the_description(files, edit_package, departs):
    editor = edit_package()
    editor.model.description.input[0].type.imageType.colorSpace = 30
    layer, reason = departs(files("checkpoint"), editor.save())
    assert (layer, reason) == (
        "input",
        "The input reaches the candidate with its channels in another order: it takes BGR.",
    )


def test_a_wrong_resize_mode(files, edit_package, departs):
    editor = edit_package()
    operation = editor.operations("upsample_bilinear")[1]
    flag = editor.constant(operation.inputs["align_corners"].arguments[0].name)
    flag.attributes["val"].immediateValue.tensor.bools.values[0] = False
    layer, reason = departs(files("checkpoint"), editor.save())
    assert (layer, reason) == (
        "up2.up",
        "up2.up interpolates with half-pixel centres; the reference aligns corners.",
    )


def test_the_nearest_value_instead_of_interpolation(files, edit_package, departs):
    editor = edit_package()
    operation = editor.operations("upsample_bilinear")[0]
    operation.type = "upsample_nearest_neighbor"
    del operation.inputs["align_corners"]
    layer, reason = departs(files("checkpoint"), editor.save())
    assert (layer, reason) == ("up1.up", "up1.up repeats the nearest value; the reference aligns corners.")


def test_a_weight_that_is_infinite(files, edit_package, departs):
    editor = edit_package()
    weight = editor.blob(f"{CONV}.weight")
    weight[0, 0, 0, 0] = np.inf
    weight.flush()
    layer, reason = departs(files("checkpoint"), editor.save())
    assert (layer, reason) == (CONV, f"{CONV} has weights that are NaN or infinite, 1 of 576.")


@pytest.mark.parametrize("reference", ["checkpoint", "onnx"])
def test_an_overflow_of_fp16(departs, tmp_path, reference):
    model = loud_model()
    right = write(reference, model, tmp_path / "loud")
    layer, reason = departs(right, write("package", model, tmp_path / "loud"))
    assert layer == LOUD
    assert reason.startswith(f"{LOUD} overflows fp16: values reach ")
    assert float(reason.partition("reach ")[2].partition(" ")[0]) > 65504
    shutil.rmtree(tmp_path / "loud.mlpackage")
    assert departs(right, write("package", model, tmp_path / "loud", precision="fp32")) == (None, "")


def test_the_order_of_a_concatenation(files, edit_package, departs):
    editor = edit_package(up="transposed")
    bound = editor.operations("concat")[1].inputs["values"].arguments
    bound[0].name, bound[1].name = bound[1].name, bound[0].name
    layer, reason = departs(files("checkpoint", up="transposed"), editor.save())
    assert (layer, reason) == ("up2.cat", "up2.cat joins its inputs in another order than the reference.")


def test_the_kind_of_pooling(files, edit_package, departs):
    editor = edit_package()
    editor.operations("max_pool")[0].type = "avg_pool"
    operation = editor.operations("avg_pool")[0]
    operation.inputs["exclude_padding_from_average"].CopyFrom(operation.inputs["ceil_mode"])
    layer, reason = departs(files("checkpoint"), editor.save())
    assert layer == "down1.maxpool_conv.0"
    assert "takes the average of its windows" in reason


def test_pixels_that_are_scaled_twice(files, edit_package, departs):
    editor = edit_package()
    weight = editor.blob("inc.double_conv.0.weight")
    weight[:] = (weight.astype(np.float32) * 250).astype(np.float16)
    weight.flush()
    layer, reason = departs(files("checkpoint"), editor.save())
    assert layer == "inc.double_conv.0"
    assert "times the reference's weights (it seems to expect pixels of another range)" in reason


def test_a_threshold_in_the_last_bias(files, edit_package, departs):
    settings = {"outputs": 1, "head": "classmap", "output_name": "mask", "threshold": 0.8}
    editor = edit_package(**settings)
    assert departs(files("checkpoint", outputs=1, threshold=0.8), editor.save()) == (None, "")
    bias = next(each for each in editor.operations("const") if each.outputs[0].name.startswith("p_net_outc_conv_bias"))
    stored = bias.attributes["val"].immediateValue.tensor.bytes
    stored.values = (np.frombuffer(stored.values, "<f2") + np.array([0, np.log(4)], "<f2")).tobytes()
    layer, reason = departs(files("checkpoint", outputs=1, threshold=0.8), editor.save())
    assert layer == "outc.conv"
    assert "has other biases: 1 of 1 differs, by up to 1.39" in reason


@pytest.mark.parametrize("name", ["int8", "palette6", "int4", "sparse50"])
def test_compression_is_no_fault_and_a_fault_in_it_is(tmp_path, departs, photo, name):
    from tests.export.conftest import lively_model
    from unet_edge_bench.layers import compare_layers
    from unet_edge_export.compress import COMPRESSIONS
    from unet_edge_export.to_coreml import PackageOptions, write_coreml

    from .conftest import SIZE, spec_for

    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    model = lively_model(depth=3)
    told = {"compression": {"name": name, "text": "..."}}
    spec = spec_for(model, input_size=SIZE, precision="fp16", provenance=told)
    path = tmp_path / "small.mlpackage"
    write_coreml(model, spec, path, PackageOptions(COMPRESSIONS[name].target or "macOS14"))
    checkpoint = write("checkpoint", model, tmp_path / "net")
    for pair in [(checkpoint, path), (path, checkpoint)]:
        report = compare_layers(*pair, photo)
        assert report.reason == "", report.table()
    assert any(row.note for row in compare_layers(checkpoint, path, photo).rows)
    other = lively_model(depth=3)
    layer = other.up1.conv.double_conv[0]
    layer.weight.data.view(-1)[5] += 3 * layer.weight.abs().max().item()
    layer, reason = departs(write("checkpoint", other, tmp_path / "other"), path)
    assert layer == "up1.conv.double_conv.0"
    assert "has other weights" in reason


def test_a_damaged_package_is_one_line(edit_package, files, departs):
    from unet_edge_runtime.errors import ModelFileError

    editor = edit_package()
    editor.save()
    (editor.path / "Data" / "com.apple.CoreML" / "weights" / "weight.bin").write_bytes(b"short")
    with pytest.raises(ModelFileError, match=r"weight.bin is too short"):
        departs(files("checkpoint"), editor.path)
