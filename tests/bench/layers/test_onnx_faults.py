"""Faults planted in ONNX files: the layer and the cause are named."""

from __future__ import annotations

import numpy as np
import onnx
import pytest
from onnx import TensorProto, helper, numpy_helper

from unet_edge_runtime.errors import ModelFileError

from .conftest import LOUD, loud_model, write

CONV = "up1.conv.double_conv.2"


@pytest.mark.parametrize("format", ["checkpoint", "package"])
def test_one_percent_of_one_layer_s_weights(files, edit_onnx, departs, tmp_path, format):
    editor = edit_onnx()
    weight = editor.weight(f"{CONV}.weight")
    weight.reshape(-1)[::100] += 0.5 * np.abs(weight).max()
    editor.set_weight(f"{CONV}.weight", weight)
    layer, reason = departs(files(format), editor.save(tmp_path / "m.onnx"))
    assert layer == CONV
    assert reason.startswith(f"{CONV} has other weights: {len(weight.reshape(-1)[::100])} of {weight.size} differ")


def test_all_weights_one_percent_larger(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    editor.set_weight(f"{CONV}.weight", 1.01 * editor.weight(f"{CONV}.weight"))
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert (layer, reason) == (CONV, f"{CONV} has 1.01 times the reference's weights.")


def test_a_weight_that_the_image_does_not_show(files, edit_onnx, tmp_path, photo):
    from unet_edge_bench.layers import compare_layers

    editor = edit_onnx()
    weight = editor.weight("inc.double_conv.0.weight")
    weight[0, 0, 1, 1] += 1e-5
    editor.set_weight("inc.double_conv.0.weight", weight)
    report = compare_layers(files("checkpoint"), editor.save(tmp_path / "m.onnx"), 0 * photo)
    assert report.reason.startswith("inc.double_conv.0 has other weights: 1 of 108 differs, by up to 1e-05")
    assert "which this image does not show" in report.first.note


def test_a_bias(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    bias = editor.weight("inc.double_conv.2.bias")
    bias[1] += 0.05
    editor.set_weight("inc.double_conv.2.bias", bias)
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == "inc.double_conv.2"
    assert reason.startswith("inc.double_conv.2 has other biases: 1 of 4 differs, by up to 0.05")


@pytest.mark.parametrize(
    ("attributes", "words"),
    [
        ({"coordinate_transformation_mode": "half_pixel"}, "interpolates with half-pixel centres"),
        ({"coordinate_transformation_mode": "pytorch_half_pixel"}, "interpolates with half-pixel centres"),
        ({"coordinate_transformation_mode": "asymmetric"}, "interpolates from the top left corners of the pixels"),
        (
            {"mode": "nearest", "coordinate_transformation_mode": "asymmetric", "nearest_mode": "floor"},
            "repeats the nearest value",
        ),
    ],
)
def test_a_wrong_resize_mode(files, edit_onnx, departs, tmp_path, attributes, words):
    editor = edit_onnx()
    for attribute, value in attributes.items():
        editor.set(editor.node("up2.up"), attribute, value)
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert (layer, reason) == ("up2.up", f"up2.up {words}; the reference aligns corners.")


def test_an_overflow_of_fp16(files, departs, tmp_path):
    """A convolution in half precision, between casts, in a network whose values do not fit it."""
    model = loud_model()
    checkpoint, path = write("checkpoint", model, tmp_path / "loud"), write("onnx", model, tmp_path / "loud")
    assert departs(checkpoint, path) == (None, "")
    proto = onnx.load(path)
    half_convolution(proto, LOUD)
    onnx.save(proto, path)
    layer, reason = departs(checkpoint, path)
    assert layer == LOUD
    assert reason.startswith(f"{LOUD} overflows fp16: values reach ")
    assert reason.endswith("there, and fp16 ends at 65504.")


def test_half_precision_that_does_not_overflow_is_rounding(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    half_convolution(editor.proto, CONV)
    assert departs(files("checkpoint"), editor.save(tmp_path / "m.onnx")) == (None, "")


def half_convolution(proto, name):
    graph = proto.graph
    place = next(index for index, node in enumerate(graph.node) if node.name == name)
    node = graph.node[place]
    before = helper.make_node("Cast", [node.input[0]], ["half_in"], to=TensorProto.FLOAT16, name="to_half")
    after = helper.make_node("Cast", ["half_out"], [node.output[0]], to=TensorProto.FLOAT, name="to_float")
    node.input[0], node.output[0] = "half_in", "half_out"
    for stored in graph.initializer:
        if stored.name in node.input[1:]:
            array = numpy_helper.to_array(stored)
            with np.errstate(over="ignore"):
                stored.CopyFrom(numpy_helper.from_array(array.astype(np.float16), stored.name))
    graph.node.insert(place, before)
    graph.node.insert(place + 2, after)


def test_swapped_colour_channels(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    weight = editor.weight("inc.double_conv.0.weight")
    editor.set_weight("inc.double_conv.0.weight", weight[:, ::-1].copy())
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == "inc.double_conv.0"
    assert "takes BGR where the reference takes RGB" in reason


def test_a_wrong_normalisation_in_the_spec(files, departs):
    other = files("onnx", mean=(0.485, 0.456, 0.406), std=(0.229, 0.224, 0.225))
    layer, reason = departs(files("checkpoint"), other)
    assert layer == "input"
    assert reason == "The input differs: mean is (0.485, 0.456, 0.406) for the candidate, none for the reference."


def test_a_wrong_scale_in_the_spec(files, departs):
    layer, reason = departs(files("checkpoint"), files("onnx", scale=0.5))
    assert layer is None
    assert "50x70 with 3 channels for the reference, 25x35 with 3 channels for the candidate" in reason


def test_padding(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    editor.set(editor.node(CONV), "pads", [0, 0, 2, 2])
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == CONV
    assert reason.startswith(f"{CONV} pads by (0, 0, 2, 2) (top, left, bottom, right), the reference pads by (1, 1, 1")


def test_the_kind_of_pooling(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    node = editor.node("down2.maxpool_conv.0")
    node.op_type = "AveragePool"
    kept = [each for each in node.attribute if each.name not in ("storage_order", "dilations")]
    del node.attribute[:]
    node.attribute.extend(kept)
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == "down2.maxpool_conv.0"
    assert "takes the average of its windows, the reference takes the max of its windows" in reason


def test_the_order_of_a_concatenation(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    node = editor.node("up1.cat")
    node.input[0], node.input[1] = node.input[1], node.input[0]
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert (layer, reason) == ("up1.cat", "up1.cat joins its inputs in another order than the reference.")


def test_a_layer_that_is_missing(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    node = editor.node("down1.maxpool_conv.1.double_conv.1")
    node.op_type = "Identity"
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == "down1.maxpool_conv.1.double_conv.1"
    assert reason == "down1.maxpool_conv.1.double_conv.1 is missing in the candidate."


def test_a_layer_of_another_kind(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    node = editor.node("up2.conv.double_conv.1")
    node.op_type = "LeakyRelu"
    editor.set(node, "alpha", 0.2)
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == "up2.conv.double_conv.1"
    assert "LeakyRelu" in reason or "missing" in reason


def test_an_operation_too_many(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    editor.graph.initializer.append(numpy_helper.from_array(np.float32(1.25), "much"))
    editor.insert(editor.node("up1.conv.double_conv.1"), op="Mul", inputs=["much"])
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert (layer, reason) == (CONV, f"{CONV} has an additional Mul before it.")


def test_classes_in_another_order(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx(outputs=3)
    for part in ("weight", "bias"):
        editor.set_weight(f"outc.conv.{part}", editor.weight(f"outc.conv.{part}")[[2, 0, 1]])
    layer, reason = departs(files("checkpoint", outputs=3), editor.save(tmp_path / "m.onnx"))
    assert layer == "outc.conv"
    assert "returns the classes in another order: 2, 0, 1" in reason


def test_a_threshold_inside_the_graph(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx(outputs=1, head="classmap", output_name="classmap")
    limit = next(each for each in editor.graph.initializer if each.name == editor.node("head.greater").input[1])
    limit.CopyFrom(numpy_helper.from_array(np.float32(np.log(0.9 / 0.1)), limit.name))
    layer, reason = departs(files("checkpoint", outputs=1), editor.save(tmp_path / "m.onnx"))
    assert layer == "head"
    assert "gives other labels than its own logits" in reason
    share = float(reason.partition("at a probability of ")[2].partition(",")[0])
    assert share == pytest.approx(0.9, abs=0.02)


def test_a_threshold_in_the_last_bias(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx(head="classmap", output_name="classmap", threshold=0.9)
    bias = editor.weight("outc.conv.bias")
    editor.set_weight("outc.conv.bias", bias + np.array([0, np.log(9)]))
    layer, reason = departs(files("checkpoint", threshold=0.9), editor.save(tmp_path / "m.onnx"))
    assert layer == "outc.conv"
    assert "has other biases: 1 of 2 differs, by up to 2.2" in reason


def test_a_threshold_that_only_the_specs_tell(files, departs):
    candidate = files("onnx", head="classmap", output_name="classmap", threshold=0.9)
    assert departs(files("checkpoint"), candidate)[1] == (
        "The layers agree; the candidate decides at a probability of 0.9, the reference at 0.5."
    )


def test_a_softmax_over_the_wrong_side(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx(outputs=3, head="probabilities", output_name="probabilities")
    editor.set(editor.node("head.softmax"), "axis", 2)
    layer, reason = departs(files("checkpoint", outputs=3), editor.save(tmp_path / "m.onnx"))
    assert layer == "head"
    assert "differs from the softmax of its own logits" in reason


def test_the_error_of_a_layer_is_not_blamed_on_those_after_it(files, edit_onnx, tmp_path, photo):
    from unet_edge_bench.layers import compare_layers

    editor = edit_onnx()
    editor.set_weight("inc.double_conv.0.weight", 1.2 * editor.weight("inc.double_conv.0.weight"))
    report = compare_layers(files("checkpoint"), editor.save(tmp_path / "m.onnx"), photo)
    assert [row.name for row in report.rows if row.departs] == ["inc.double_conv.0"]
    assert all(row.max_difference > 0.01 for row in report.rows[1:])


def test_weights_that_the_file_computes(files, edit_onnx, departs, tmp_path):
    """A weight stored as half and cast is read through the cast, and its rounding is seen."""
    editor = edit_onnx()
    stored = next(each for each in editor.graph.initializer if each.name == f"net.{CONV}.weight")
    half = numpy_helper.to_array(stored).astype(np.float16)
    stored.CopyFrom(numpy_helper.from_array(half, "stored"))
    cast = helper.make_node("Cast", ["stored"], [f"net.{CONV}.weight"], to=TensorProto.FLOAT, name="cast_weight")
    editor.graph.node.insert(0, cast)
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == CONV
    assert reason.startswith(f"{CONV} has other weights: ")


def test_a_constant_that_cannot_be_computed_is_one_line(files, edit_onnx, departs, tmp_path):
    editor = edit_onnx()
    node = helper.make_node("Reshape", [f"net.{CONV}.bias", "wrong"], ["unused"], name="planted")
    editor.graph.initializer.append(numpy_helper.from_array(np.array([3, 5], np.int64), "wrong"))
    editor.graph.node.insert(0, node)
    onnx.save(editor.proto, tmp_path / "m.onnx")
    with pytest.raises(ModelFileError) as caught:
        departs(files("checkpoint"), tmp_path / "m.onnx")
    assert "m.onnx" in str(caught.value)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("empty", ["candidate", "reference"])
def test_a_layer_without_weights(files, edit_onnx, departs, tmp_path, empty):
    editor = edit_onnx()
    editor.set_weight(f"{CONV}.weight", 0 * editor.weight(f"{CONV}.weight"))
    paths = files("checkpoint"), editor.save(tmp_path / "m.onnx")
    layer, reason = departs(*(paths if empty == "candidate" else paths[::-1]))
    assert layer == CONV
    assert reason.startswith(f"{CONV} has other weights: ")


def test_a_layer_of_another_width(files, edit_onnx, departs, tmp_path):
    editor, wide, after = edit_onnx(), "up2.conv.double_conv.0", "up2.conv.double_conv.2"
    for name in (f"{wide}.weight", f"{wide}.bias"):
        values = editor.weight(name)
        editor.set_weight(name, np.concatenate([values, values[:1]]))
    weight = editor.weight(f"{after}.weight")
    editor.set_weight(f"{after}.weight", np.concatenate([weight, 0 * weight[:, :1]], axis=1))
    del editor.graph.value_info[:]
    layer, reason = departs(files("checkpoint"), editor.save(tmp_path / "m.onnx"))
    assert layer == wide
    assert reason.startswith(f"{wide} has weights of ")
    assert reason.endswith("biases where the reference has 4.")
