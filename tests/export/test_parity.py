"""The comparison with PyTorch: passes what is right, stops what is wrong."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge.torch_backend import TorchBackend
from unet_edge_export.images import CheckImages
from unet_edge_export.parity import check_agreement, compare
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import AgreementError, UnetEdgeError
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import FP32, Tolerance

from .conftest import lively_model

IMAGE = np.random.default_rng(0).integers(0, 256, (50, 70, 3), np.uint8)
IMAGES = CheckImages([IMAGE], "one made-up image")


class Disturbed(Backend):
    """PyTorch with something done to its logits."""

    name = "disturbed"

    def __init__(self, model, spec, disturb):
        self.path, self.spec, self.disturb = Path("artefact"), spec, disturb
        self.inner = TorchBackend.from_model(model, spec)

    def _run(self, batch):
        return self.disturb(self.inner.run(batch).copy())


def spec_for(outputs: int = 2, **changes: object) -> ModelSpec:
    classes = class_infos(list(range(max(2, outputs))))
    return ModelSpec(channels=3, classes=classes, outputs=outputs, multiple=4, **changes)


@pytest.mark.parametrize("size", [None, (32, 32), (64, 96)])
def test_the_same_tensors_reach_both(size):
    """Padding at any size, tiles at a small one: identical networks agree exactly."""
    model = lively_model()
    candidate = Disturbed(model, spec_for(input_size=size, scale=0.9), lambda y: y)
    agreement, magnitude = compare(model, candidate, IMAGES)
    assert (agreement.max_difference, agreement.flipped, agreement.images) == (0, 0, 1)
    assert agreement.pixels == 50 * 70
    assert magnitude > 1


def one_pixel(y):
    y[0, 0, 3, 3] += 0.01
    return y


def nan(y):
    y[0, 1, 0, 0] = np.nan
    return y


@pytest.mark.parametrize(
    ("disturb", "message"),
    [
        (one_pixel, r"largest difference 0\.01, allowed 0\.0001"),
        (lambda y: y[:, ::-1], r"% of the labels equal, required 99\.999%"),
    ],
)
def test_a_mismatch_is_an_error_with_its_numbers(disturb, message):
    model = lively_model()
    with pytest.raises(AgreementError, match=message):
        check_agreement(model, Disturbed(model, spec_for(), disturb), IMAGES, FP32)


def test_nan_never_passes():
    model = lively_model()
    with pytest.raises(UnetEdgeError, match="NaN or infinite values"):
        check_agreement(model, Disturbed(model, spec_for(), nan), IMAGES, FP32)
    assert "NaN" in FP32.problems(Agreement(np.inf, pixels=10, flipped=0, images=1))[0]


def test_a_class_map_is_compared_by_its_labels():
    model = lively_model()
    labels = spec_for(head="classmap")

    class Labels(Backend):
        name, path, spec = "labels", Path("artefact"), labels

        def _run(self, batch):
            return (TorchBackend.from_model(model, spec_for()).run(batch).argmax(axis=1) ^ flip)[:, None]

    flip = 0
    agreement, _ = check_agreement(model, Labels(), IMAGES, FP32)
    assert not agreement.compared_logits
    assert agreement.flipped == 0
    flip = 1
    with pytest.raises(AgreementError, match=r"0\.00000% of the labels equal"):
        check_agreement(model, Labels(), IMAGES, FP32)


def test_a_checkpoint_full_of_nan_is_not_exported():
    model = lively_model()
    with torch.no_grad():
        model.outc.conv.bias[0] = float("nan")
    with pytest.raises(UnetEdgeError, match=r"return(s|ed) NaN"):
        check_agreement(model, Disturbed(model, spec_for(), lambda y: y), IMAGES, FP32)


def test_the_bound_grows_with_large_logits_only():
    assert FP32.at(3) == FP32.at(10) == FP32
    assert FP32.at(50).max_logit_difference == pytest.approx(5e-4)
    assert FP32.at(50).equal_labels == FP32.equal_labels


def test_one_pixel_may_tie_two_may_not():
    tolerance = Tolerance(1e-4, 0.99999)
    assert not tolerance.problems(Agreement(0.0, pixels=4096, flipped=1, images=1))
    assert tolerance.problems(Agreement(0.0, pixels=4096, flipped=2, images=1))
    assert not tolerance.problems(Agreement(0.0, pixels=1_000_000, flipped=10, images=1))
    assert tolerance.problems(Agreement(0.0, pixels=1_000_000, flipped=11, images=1))


def test_ties_of_an_undecided_network_are_called_so():
    problems = FP32.problems(Agreement(1e-7, pixels=4096, flipped=9, images=1))
    assert "undecided" in problems[-1]
    assert "undecided" not in " ".join(FP32.problems(Agreement(1.0, pixels=4096, flipped=9, images=1)))


def test_nothing_compared_is_no_agreement():
    assert FP32.problems(Agreement())
