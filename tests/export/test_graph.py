"""The exported graph computes what the network computes."""

from __future__ import annotations

import math

import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge_export.graph import ExportGraph, fold_batch_norm
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
