"""Exports that are right: no layer departs, whatever the decoder, head, channels and format."""

from __future__ import annotations

import numpy as np
import pytest

from unet_edge_bench.layers import compare_layers
from unet_edge_bench.layers.compare import MAX_SIDE

from .conftest import SIZE, OnnxEditor, write

HEADS = [(1, "logits"), (2, "logits"), (4, "logits"), (1, "probabilities"), (2, "probabilities"), (3, "probabilities")]
HEADS += [(1, "classmap"), (2, "classmap"), (3, "classmap")]


def insist(report, layers):
    assert report.reason == "", report.table()
    assert report.first is None
    assert [row.name for row in report.rows if row.kind == "conv"] == layers
    assert all(row.rounding is None or row.rounding < 1 for row in report.rows)


def convolutions(depth):
    pair = ("double_conv.0", "double_conv.2")
    names = [f"inc.{one}" for one in pair]
    names += [f"down{level}.maxpool_conv.1.{one}" for level in range(1, depth + 1) for one in pair]
    return [*names, *(f"up{step}.conv.{one}" for step in range(1, depth + 1) for one in pair), "outc.conv"]


def cases():
    """Every head in every format, with either decoder; the quick ones have each head once a format."""
    for index, (outputs, head) in enumerate(HEADS):
        for format in ("onnx", "package"):
            for turn, up in enumerate(("transposed", "bilinear")):
                marks = [] if turn == index % 2 else [pytest.mark.slow]
                yield pytest.param(format, up, outputs, head, marks=marks)


@pytest.mark.parametrize(("format", "up", "outputs", "head"), list(cases()))
def test_an_untouched_export_departs_nowhere(files, photo, format, up, outputs, head):
    artefact = files(format, up=up, outputs=outputs, head=head, output_name=head, threshold=0.5 if outputs > 2 else 0.7)
    report = compare_layers(files("checkpoint", up=up, outputs=outputs, threshold=0.7), artefact, photo)
    insist(report, convolutions(2))
    assert report.rows[0].name == "input"
    assert (report.rows[-1].name == "head") == (head != "logits")


@pytest.mark.parametrize("values", [(0, 255), (10, 20, 30), (0, 200, 7)])
@pytest.mark.parametrize("format", ["onnx", "package"])
def test_a_mask_picture_departs_nowhere(files, photo, format, values):
    head = {"head": "classmap", "output_name": "mask", "label_values": values}
    artefact = files(format, outputs=len(values), **head)
    insist(compare_layers(files("checkpoint", outputs=len(values)), artefact, photo), convolutions(2))


@pytest.mark.parametrize("spec", [{"channels": 1}, {"channels": 4}, {"mean": (0.4, 0.5, 0.6), "std": (0.2, 0.3, 0.2)}])
@pytest.mark.parametrize("format", ["onnx", "package"])
def test_other_inputs_depart_nowhere(files, photo, format, spec):
    image = photo if spec.get("channels") != 4 else np.dstack([photo, photo[..., :1]])
    report = compare_layers(files("checkpoint", **spec), files(format, **spec), image)
    insist(report, convolutions(2))


@pytest.mark.parametrize("reference", ["checkpoint", "onnx", "package"])
@pytest.mark.parametrize("candidate", ["checkpoint", "onnx", "package"])
def test_any_format_can_be_either_side(files, photo, reference, candidate):
    report = compare_layers(files(reference, up="transposed"), files(candidate, up="transposed"), photo)
    insist(report, convolutions(2))
    names = ["up1.up", "up1.cat", "down1.maxpool_conv.0", "inc.double_conv.1"]
    kinds = {row.name: row.kind for row in report.rows}
    assert [kinds[name] for name in names] == ["upconv", "concat", "pool", "relu"]
    assert report.size == (SIZE if "package" in (reference, candidate) else (52, 72))


def test_a_package_of_fp32_is_judged_as_fp32(files, photo):
    checkpoint = files("checkpoint")
    errors = {}
    for precision in ("fp32", "fp16"):
        report = compare_layers(checkpoint, files("package", precision=precision), photo)
        insist(report, convolutions(2))
        errors[precision] = max(row.local_error or 0 for row in report.rows)
    assert errors["fp32"] < errors["fp16"] / 100


def test_a_model_against_itself_is_identical(files, photo):
    report = compare_layers(files("checkpoint"), files("checkpoint"), photo)
    assert {row.max_difference for row in report.rows} == {0.0}
    assert "identical" in report.table()


def test_a_file_without_our_names_is_aligned_by_order(files, photo, tmp_path):
    editor = OnnxEditor(files("onnx", up="transposed"))
    names = {each.name: f"w{index}" for index, each in enumerate(editor.graph.initializer)}
    for each in editor.graph.initializer:
        each.name = names[each.name]
    for index, node in enumerate(editor.graph.node):
        node.name = f"node_conv2d_{index}"
        for place, value in enumerate(node.input):
            node.input[place] = names.get(value, value)
    report = compare_layers(files("checkpoint", up="transposed"), editor.save(tmp_path / "old.onnx"), photo)
    insist(report, convolutions(2))


def test_a_large_image_is_cut_to_its_middle_and_said_so(files):
    image = np.random.default_rng(0).integers(0, 256, (600, 700, 3)).astype(np.uint8)
    report = compare_layers(files("checkpoint"), files("onnx"), image)
    assert report.size == (MAX_SIDE, MAX_SIDE)
    assert report.note == "Compared on the middle of the image: 512x512 of 600x700 network pixels."
    assert report.note in report.table()


@pytest.mark.parametrize(
    ("other", "words"),
    [
        ({"depth": 3}, "depth: 2 in the reference and 3 in the candidate"),
        ({"up": "transposed"}, "upsampling by interpolation in the reference and transposed convolutions"),
        ({"outputs": 3}, "outputs: 2 in the reference and 3 in the candidate"),
        ({"channels": 1}, "1 channel"),
    ],
)
@pytest.mark.parametrize("format", ["checkpoint", "onnx"])
def test_other_networks_are_told_apart(files, photo, format, other, words):
    report = compare_layers(files("checkpoint"), files(format, **other), photo)
    assert report.rows == ()
    assert words in report.reason


def test_a_wider_network_is_told_apart(photo, files, tmp_path, make_model):
    wide = write("checkpoint", make_model(base_channels=6, up="bilinear"), tmp_path / "wide")
    report = compare_layers(files("checkpoint"), wide, photo)
    assert report.reason == (
        "The two are not the same network: channels of the first layer: 4 in the reference and 6 in the candidate."
    )


def test_the_checkpoint_s_layers_are_those_of_its_own_run(files, photo):
    """The last recorded value is what the backend returns."""
    from unet_edge.torch_backend import TorchBackend
    from unet_edge_bench.layers.from_checkpoint import CheckpointModel
    from unet_edge_runtime.transform import preprocess

    path = files("checkpoint", up="transposed")
    x = preprocess(photo[:48, :64], TorchBackend(path).spec)[None]
    values = {}
    CheckpointModel(path).run(x, values.__setitem__)
    assert np.abs(values["outc.conv"].numpy() - TorchBackend(path).run(x)).max() < 1e-4
    assert len(values) == 1 + len(CheckpointModel(path).layers)
