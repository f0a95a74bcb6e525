"""The exported graph computes what the network computes."""

from __future__ import annotations

import math

import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge_export.graph import HEAD_LAYER, ExportGraph, fold_batch_norm, layer_names, trace
from unet_edge_runtime.spec import ModelSpec

from .conftest import lively_model


def spec_for(outputs: int, **changes: object) -> ModelSpec:
    classes = class_infos(list(range(max(2, outputs))))
    return ModelSpec(channels=3, classes=classes, outputs=outputs, multiple=4, **changes)


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_folding_keeps_the_output_and_leaves_the_model_alone(up):
    model = lively_model(up=up)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    folded = fold_batch_norm(model)
    x = torch.rand(2, 3, 32, 48)
    with torch.no_grad():
        expected, got = model(x), folded(x)
    assert expected.abs().max() > 0.5
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())


@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_probabilities(outputs):
    model = lively_model(outputs=outputs)
    x = torch.rand(1, 3, 32, 32)
    with torch.no_grad():
        logits = model(x)
        got = ExportGraph(model, spec_for(outputs, head="probabilities"))(x)
    expected = logits.sigmoid() if outputs == 1 else logits.softmax(dim=1)
    torch.testing.assert_close(got, expected, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("outputs", [1, 2])
@pytest.mark.parametrize("threshold", [0.5, 0.2, 0.9])
def test_classmap_of_two_classes_honours_the_threshold(outputs, threshold):
    model = lively_model(outputs=outputs)
    limit = math.log(threshold / (1 - threshold))
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        model.outc.conv.bias[-1] += limit - margin(model(x)).median()  # half of the pixels on each side
        expected = margin(model(x))
        got = ExportGraph(model, spec_for(outputs, head="classmap", threshold=threshold))(x)
    clear = (expected - limit).abs() > 1e-4
    assert got.dtype == torch.uint8
    assert got.shape == (1, 1, 64, 64)
    assert torch.equal((expected > limit)[clear], got.bool()[clear])
    assert 0.4 < got.float().mean() < 0.6
    assert clear.float().mean() > 0.9


def margin(logits):
    return logits[:, -1:] - (logits[:, :1] if logits.shape[1] == 2 else 0)


def test_classmap_of_four_classes():
    model = lively_model(outputs=4)
    x = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = model(x).argmax(dim=1, keepdim=True)
        got = ExportGraph(model, spec_for(4, head="classmap"), torch.int32)(x)
    assert got.dtype == torch.int32
    assert (got == expected).float().mean() > 0.999


@pytest.mark.parametrize("head", ["logits", "classmap"])
def test_pixels_are_taken_as_they_are(head):
    model, spec = lively_model(), spec_for(2, head=head)
    pixels = torch.randint(0, 256, (1, 3, 64, 64)).float()
    with torch.no_grad():
        expected = ExportGraph(model, spec)(pixels / 255)
        got = ExportGraph(model, spec, pixels=True)(pixels)
    if head == "logits":
        torch.testing.assert_close(got, expected, atol=1e-4, rtol=1e-5)
    assert (got.float().argmax(1) == expected.float().argmax(1)).float().mean() > 0.999
    graph = trace(ExportGraph(model, spec, pixels=True), 3, (64, 64)).graph
    assert not [node.name for node in graph.nodes if "mul" in node.name or "div" in node.name], "no operation is added"


@pytest.mark.parametrize("outputs", [1, 2, 3])
def test_a_class_map_as_a_plane(outputs):
    x = torch.linspace(0, 1, 48).expand(1, 3, 32, 48)
    model, spec = lively_model(outputs=outputs), spec_for(outputs, head="classmap", threshold=0.3)
    with torch.no_grad():
        labels = ExportGraph(model, spec, torch.int32)(x)
        plane = ExportGraph(model, spec, torch.int32, plane=True)(x)
    assert plane.dtype == torch.int32
    assert torch.equal(plane, labels[0, 0])
    assert outputs == 2 or len(plane.unique()) > 1


@pytest.mark.parametrize(
    ("outputs", "values"),
    [(1, (0, 255)), (2, (0, 255)), (2, (7, 3)), (3, (0, 1, 2)), (3, (5, 105, 205)), (4, (0, 128, 64, 255))],
)
def test_a_picture_of_mask_values(outputs, values):
    model, spec = lively_model(outputs=outputs), spec_for(outputs, head="classmap")
    x = torch.linspace(0, 1, 64).expand(1, 3, 64, 64)
    with torch.no_grad():
        labels = ExportGraph(model, spec)(x)
        picture = ExportGraph(model, spec.replace(label_values=values))(x)
    expected = torch.tensor(values).float()[labels.long()]
    assert torch.equal(picture, expected)
    assert len(labels.unique()) > 1


def test_every_operation_knows_its_layer():
    program = trace(ExportGraph(lively_model(), spec_for(2, head="probabilities")), 3, (32, 32))
    layers = layer_names(program)
    operations = [node.name for node in program.graph.nodes if node.op == "call_function"]
    assert list(layers) == operations
    assert set(layers.values()) >= {"inc.double_conv.0", "down1.maxpool_conv.0", "up1", "up1.up", "outc.conv"}
    assert [name for name, layer in layers.items() if layer == HEAD_LAYER] == ["softmax"]
