"""Scores against numbers worked out by hand."""

from __future__ import annotations

import math

import numpy as np
import pytest

from unet_edge_runtime.scores import Agreement, ConfusionMatrix
from unet_edge_runtime.spec import IGNORE_LABEL

TRUTH = np.array([[0, 0, 0, 1], [0, 1, 1, 1]], np.uint8)
GUESS = np.array([[0, 0, 1, 1], [1, 1, 1, 0]], np.uint8)


def test_by_hand():
    matrix = ConfusionMatrix(2).add(TRUTH, GUESS)
    assert matrix.counts.tolist() == [[2, 2], [1, 3]]
    assert matrix.dice == [2 * 2 / (4 + 3), 2 * 3 / (4 + 5)]
    assert matrix.iou == [2 / 5, 3 / 6]
    assert matrix.pixel_accuracy == 5 / 8
    assert matrix.pixel_error == 3 / 8
    assert (matrix.pixels, matrix.true_pixels, matrix.predicted_pixels) == (8, [4, 4], [3, 5])


def test_images_are_summed_not_averaged():
    matrix = ConfusionMatrix(2).add(TRUTH, GUESS).add(np.ones((9, 9), np.uint8), np.ones((9, 9), np.uint8))
    assert matrix.dice[1] == 2 * 84 / (85 + 86)


def test_a_class_in_neither_has_no_score():
    matrix = ConfusionMatrix(4).add(TRUTH, np.where(GUESS == 1, 2, GUESS).astype(np.uint8))
    assert matrix.dice[1] == 0.0
    assert matrix.dice[2] == 0.0
    assert matrix.dice[3] is None
    assert matrix.iou[3] is None
    assert matrix.mean(matrix.dice) == pytest.approx(sum(s for s in matrix.dice[:3]) / 3)
    assert matrix.mean(matrix.dice, leave_out=0) == 0.0
    assert matrix.mean([None, None]) is None


def test_nothing_counted_is_no_score():
    matrix = ConfusionMatrix(2).add(np.full((2, 2), IGNORE_LABEL, np.uint8), np.ones((2, 2), np.uint8))
    assert matrix.dice == [None, None]
    assert matrix.pixel_accuracy is None
    assert matrix.pixel_error is None


def test_void_does_not_count():
    truth = TRUTH.copy()
    truth[0, 2] = truth[1, 0] = IGNORE_LABEL
    assert ConfusionMatrix(2).add(truth, GUESS).counts.tolist() == [[2, 0], [1, 3]]


@pytest.mark.parametrize(
    ("truth", "guess", "message"),
    [
        (TRUTH, GUESS[:1], "shapes differ"),
        (TRUTH + np.uint8(1), GUESS, r"labels outside 0\.\.1"),
        (TRUTH, GUESS + np.uint8(1), r"labels outside 0\.\.1"),
        (TRUTH, np.full_like(GUESS, IGNORE_LABEL), r"labels outside 0\.\.1"),
        (TRUTH.astype(np.int64) + 256, GUESS, "labels must be uint8"),
    ],
)
def test_wrong_labels_are_refused(truth, guess, message):
    matrix = ConfusionMatrix(2)
    with pytest.raises(ValueError, match=message):
        matrix.add(truth, guess)
    assert not matrix.counts.any()


def test_summary_says_what_the_mean_leaves_out(make_spec):
    matrix = ConfusionMatrix(2).add(TRUTH, GUESS)
    summary = matrix.summary(make_spec())
    assert summary["dice"] == matrix.dice[1]
    assert summary["background_in_mean"] is False
    assert summary["classes"][0] == {"name": "class 0", "dice": matrix.dice[0], "iou": matrix.iou[0]}
    whole = matrix.summary(make_spec(), include_background=True)
    assert whole["dice"] == sum(matrix.dice) / 2
    assert whole["background_in_mean"] is True
    assert matrix.summary(make_spec(background=None))["iou"] == sum(matrix.iou) / 2


def test_agreement():
    logits = np.zeros((2, 2, 4), np.float32)
    agreement = Agreement()
    assert agreement.equal_labels == 0.0
    agreement.add(logits, logits + np.float32(0.25), TRUTH, TRUTH)
    agreement.add(logits, logits - np.float32(0.5), TRUTH, GUESS)
    assert agreement.max_difference == 0.5
    assert (agreement.flipped, agreement.pixels, agreement.images) == (3, 16, 2)
    assert agreement.to_dict()["equal_labels"] == 1 - 3 / 16


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
def test_nan_never_passes_for_agreement(bad):
    logits = np.zeros((2, 2, 4), np.float32)
    broken = logits.copy()
    broken[1, 0, 0] = bad
    for reference, candidate in ((logits, broken), (broken, logits), (broken, broken)):
        agreement = Agreement()
        agreement.add(logits, logits, TRUTH, TRUTH)
        agreement.add(reference, candidate, TRUTH, TRUTH)
        agreement.add(logits, logits, TRUTH, TRUTH)
        assert agreement.max_difference == math.inf


def test_agreement_of_labels_only():
    agreement = Agreement()
    agreement.add(np.zeros((2, 2, 4), np.float32), None, TRUTH, GUESS)
    assert agreement.to_dict()["max_logit_difference"] is None
    assert agreement.equal_labels == 5 / 8


def test_shapes_that_would_broadcast_are_refused():
    logits = np.zeros((2, 2, 4), np.float32)
    with pytest.raises(ValueError, match="shapes differ"):
        Agreement().add(logits, logits[:1], TRUTH, TRUTH)
    with pytest.raises(ValueError, match="shapes differ"):
        Agreement().add(logits, logits, TRUTH, TRUTH[:1])
