"""Every number of a comparison against one worked out by hand, or in the plainest way."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unet_edge_bench.verify.boundary import BOUNDARY_TOLERANCE, Boundary, boundary_agreement, boundary_pixels
from unet_edge_bench.verify.flips import Flips, reference_margins
from unet_edge_bench.verify.measurement import Measurement, comparable, measure
from unet_edge_bench.verify.sides import Output, Side
from unet_edge_runtime.errors import BackendError


class Given(Side):
    def __init__(self, spec):
        self.spec = spec

    def output(self, sample):
        raise NotImplementedError

    def facts(self):
        return {}


def out(*planes, size=None):
    values = np.asarray(planes, np.float32)
    return Output(values, size or values.shape[1:])


LEFT = out([[4.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [2.0, 0.0]])
RIGHT = out([[4.0, 0.0], [2.5, 3.0]], [[0.0, 1.0], [2.0, -1.0]])


@pytest.fixture
def two(make_spec):
    return Given(make_spec((0, 255)))


def test_differences_by_hand(two):
    found = measure(two, two, LEFT, RIGHT)
    m = found.to_dict()
    assert m["max_difference"] == 2.5
    assert m["mean_difference"] == 3.5 / 8
    assert m["snr_db"] == pytest.approx(10 * math.log10((16 + 9 + 1 + 4) / (2.5**2 + 1)))
    assert found.magnitude == 4.0
    assert (m["flipped"], m["pixels"], m["equal_labels"]) == (1, 4, 0.75)
    assert m["dice"] == pytest.approx((2 * 2 / (2 + 3) + 2 * 1 / (2 + 1)) / 2)
    assert m["iou"] == pytest.approx((2 / 3 + 1 / 2) / 2)
    assert not m["identical"]


def test_the_margin_is_the_references(two):
    m = measure(two, two, LEFT, RIGHT).to_dict()
    # Only pixel (1, 0) flips; the reference's margin there is 2 - 0, its probability 0.88.
    assert m["flips"] == {"sure": 0, "margin_median": 2.0, "margin_largest": 2.0}
    surer = out([[4.0, 0.0], [0.0, 3.0]], [[0.0, 1.0], [2.3, 0.0]])
    assert measure(two, two, surer, RIGHT).to_dict()["flips"]["sure"] == 1


def test_merged_images_are_one(two):
    total = Measurement.of(2)
    for left, right in ((LEFT, RIGHT), (RIGHT, LEFT), (LEFT, LEFT)):
        total.merge(measure(two, two, left, right))
    m = total.to_dict()
    assert (m["flipped"], m["pixels"]) == (2, 12)
    assert m["mean_difference"] == 7 / 24
    assert total.agreement.images == 3
    assert m["dice"] == pytest.approx((2 * 6 / 14 + 2 * 4 / 10) / 2)
    assert m["snr_db"] == pytest.approx(10 * math.log10((2 * 30 + 16 + 9 + 6.25 + 1 + 4 + 1) / (2 * 7.25)))


def test_identical_is_said_and_not_called_infinite(two):
    m = measure(two, two, LEFT, LEFT).to_dict()
    assert m["identical"]
    assert m["snr_db"] is None
    assert m["max_difference"] == 0


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_not_finite_is_counted_never_averaged(two, value):
    spoilt = out([[4.0, value], [0.0, 3.0]], [[0.0, 1.0], [2.0, 0.0]])
    m = measure(two, two, LEFT, spoilt).to_dict()
    assert m["not_finite"] == {"reference": 0, "candidate": 1}
    assert m["max_difference"] is None
    assert m["snr_db"] is None
    assert not m["identical"]
    # The same on both sides is no agreement either.
    assert not measure(two, two, spoilt, spoilt).identical


def test_what_can_be_compared(make_spec):
    spec = make_spec((0, 255))
    assert comparable(spec, spec) == ("logits", "")
    assert comparable(spec, spec.replace(head="probabilities"))[0] == "probabilities"
    for other in (spec.replace(head="classmap"), spec.replace(outputs=1), spec.replace(scale=0.5)):
        kind, note = comparable(spec, other)
        assert kind == "labels"
        assert note


def test_logits_against_probabilities(make_spec):
    spec = make_spec((0, 100, 255))
    logits = np.random.default_rng(0).normal(0, 3, (3, 8, 9)).astype(np.float32)
    powers = np.exp(logits.astype(np.float64))
    other = out(*(powers / powers.sum(axis=0)))
    found = measure(Given(spec), Given(spec.replace(head="probabilities")), out(*logits), other)
    assert found.agreement.max_difference < 1e-6
    assert found.agreement.flipped == 0
    assert found.values == logits.size


def test_a_label_that_is_no_class_is_refused(make_spec):
    spec = Given(make_spec((0, 255), head="classmap"))
    with pytest.raises(BackendError, match="label 7 was returned, and there are 2 classes"):
        measure(spec, spec, out([[0.0, 1.0]]), out([[0.0, 7.0]]))


def test_margins_of_every_kind_of_output(make_spec):
    rng = np.random.default_rng(1)
    everywhere = np.ones((5, 6), bool)
    for outputs, threshold in ((1, 0.5), (2, 0.3)):
        spec = make_spec((0, 255), outputs=outputs, threshold=threshold)
        logits = out(*rng.normal(0, 3, (outputs, 5, 6)))
        z = logits.values[0] if outputs == 1 else logits.values[1] - logits.values[0]
        labels = Given(spec).labels(logits)
        margins, sure = reference_margins(logits, spec, labels, everywhere)
        np.testing.assert_allclose(margins, np.abs(z - math.log(threshold / (1 - threshold))).ravel(), rtol=1e-5)
        positive = 1 / (1 + np.exp(-z.astype(np.float64)))
        assert (sure == (np.where(labels == 1, positive, 1 - positive) >= 0.9).ravel()).all()
        as_probabilities = out(*([positive] if outputs == 1 else [1 - positive, positive]))
        margins, again = reference_margins(as_probabilities, spec.replace(head="probabilities"), labels, everywhere)
        np.testing.assert_allclose(margins, np.abs(positive - threshold).ravel(), atol=1e-6)
        assert (again == sure).all()
    spec = make_spec((0, 1, 2, 3))
    logits = out(*rng.normal(0, 3, (4, 5, 6)))
    margins, sure = reference_margins(logits, spec, Given(spec).labels(logits), everywhere)
    ordered = np.sort(logits.values.reshape(4, -1), axis=0)
    np.testing.assert_allclose(margins, ordered[-1] - ordered[-2], rtol=1e-5)
    powers = np.exp(ordered.astype(np.float64))
    assert (sure == (powers[-1] / powers.sum(axis=0) >= 0.9)).all()


def test_the_median_of_margins():
    margins = np.random.default_rng(2).exponential(3, 10_001).astype(np.float32)
    flips = Flips()
    for part in np.array_split(margins, 7):
        flips.add(part, part > 1)
    assert flips.median == pytest.approx(np.median(margins), rel=1e-3)
    assert flips.largest == margins.max()
    assert (flips.count, flips.sure) == (10_001, (margins > 1).sum())
    assert Flips().median is None


def nearest(pixels, targets, tolerance):
    """How many of `pixels` are near `targets`, the slow way."""
    ours, theirs = np.argwhere(pixels), np.argwhere(targets)
    distances = np.sqrt(((ours[:, None] - theirs[None]) ** 2).sum(axis=2)).min(axis=1)
    return int((distances <= tolerance).sum())


@pytest.mark.parametrize("seed", range(4))
def test_outlines_against_the_slow_way(seed):
    rng = np.random.default_rng(seed)
    shape = (150, 320)
    # Scattered pixels, so that the nearest one lies in any direction, and some at the border.
    labels = [(rng.random(shape) < 0.01).astype(np.uint8) for _ in range(2)]
    tolerance = BOUNDARY_TOLERANCE * math.hypot(*shape)
    assert tolerance > 2
    ours, theirs = map(boundary_pixels, labels)
    expected = Boundary(
        int(ours.sum()), nearest(ours, theirs, tolerance), int(theirs.sum()), nearest(theirs, ours, tolerance)
    )
    found = boundary_agreement(*labels)
    assert found == expected
    assert 0 < found.candidate_near < found.candidate


def test_outlines_by_hand():
    labels = np.zeros((40, 40), np.uint8)
    labels[:, 20:] = 1
    assert boundary_agreement(labels, labels).f1 == 1
    assert boundary_agreement(labels, np.zeros_like(labels)).f1 == 0
    assert boundary_agreement(np.zeros_like(labels), np.zeros_like(labels)).f1 is None


def test_logits_against_probabilities_of_one_output(make_spec):
    spec = make_spec((0, 255), outputs=1)
    logits = np.random.default_rng(0).normal(0, 3, (8, 9)).astype(np.float32)
    other = out(1 / (1 + np.exp(-logits.astype(np.float64))))
    for left, right in (("logits", "probabilities"), ("probabilities", "logits")):
        sides = [Given(spec.replace(head=head)) for head in (left, right)]
        found = measure(*sides, *(out(logits) if head == "logits" else other for head in (left, right)))
        assert found.agreement.max_difference < 1e-6
        assert found.agreement.flipped == 0


def test_a_margin_of_minus_zero_is_zero():
    flips = Flips()
    flips.add(np.full(9, -0.0, np.float32), np.zeros(9, bool))
    assert (flips.count, flips.median) == (9, 0)


def test_outlines_of_a_long_and_narrow_image():
    """The tolerance is wider than the image, and yet nothing is near what is not there."""
    left, right = np.zeros((4096, 8), np.uint8), np.zeros((4096, 8), np.uint8)
    left[:, 4:] = 1
    right[0, 0] = 1
    found = boundary_agreement(left, right)
    assert 0 < found.reference_near < 100 < found.reference
