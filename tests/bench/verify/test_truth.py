"""Scores against true masks, and whether their difference is more than chance."""

from __future__ import annotations

import numpy as np
import pytest

from unet_edge_bench.verify.sides import Sample
from unet_edge_bench.verify.truth import RESAMPLES, Scores, difference_interval, true_labels
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.spec import IGNORE_LABEL


@pytest.fixture
def spec(make_spec):
    return make_spec((0, 100, 255), ignore_value=7)


def noisy(truth, share, rng):
    return np.where(rng.random(truth.shape) < share, rng.integers(0, 3, truth.shape), truth).astype(np.uint8)


def scored(spec, shares, images=12):
    """Scores of models that err on these shares of the pixels, on the same images."""
    found, rng = [Scores(spec) for _ in shares], np.random.default_rng(3)
    for _ in range(images):
        truth = rng.integers(0, 3, (20, 30)).astype(np.uint8)
        truth[0] = IGNORE_LABEL
        for scores, share in zip(found, shares, strict=True):
            scores.add(truth, noisy(np.minimum(truth, 2), share, rng))
    return found


def test_equal_models_do_not_differ(spec):
    scores = scored(spec, [0.1])[0]
    interval = difference_interval(scores, scores, seed=0)
    assert interval["dice"] == {"difference": 0, "low": 0, "high": 0}
    assert interval["resamples"] == RESAMPLES


def test_a_worse_model_is_found_worse(spec):
    interval = difference_interval(*scored(spec, [0.1, 0.2]), seed=0)
    for name in ("dice", "iou"):
        assert interval[name]["low"] < interval[name]["difference"] < interval[name]["high"] < 0


def test_chance_is_not_called_a_difference(spec):
    interval = difference_interval(*scored(spec, [0.1, 0.1]), seed=0)
    assert interval["dice"]["low"] < 0 < interval["dice"]["high"]


def test_the_seed_decides(spec):
    pair = scored(spec, [0.1, 0.2])
    assert difference_interval(*pair, seed=1) == difference_interval(*pair, seed=1)
    assert difference_interval(*pair, seed=1) != difference_interval(*pair, seed=2)


def test_the_interval_against_the_slow_way(spec):
    ours, theirs = scored(spec, [0.1, 0.2], images=5)
    drawn = np.random.default_rng(9).multinomial(5, [1 / 5] * 5, size=RESAMPLES)
    differences = []
    for times in drawn:
        means = []
        for scores in (ours, theirs):
            hits, truth, predicted = sum(n * image for n, image in zip(times, scores.images, strict=True))
            means.append(np.mean([2 * hits[k] / (truth[k] + predicted[k]) for k in (1, 2)]))
        differences.append(means[1] - means[0])
    interval = difference_interval(ours, theirs, seed=9)["dice"]
    # 2.776 is Student's t of four degrees of freedom, 1.96 the normal distribution's: five images are few.
    factor = 2.776 / 1.96 * np.sqrt(5 / 4)
    found = [interval[end] - interval["difference"] for end in ("low", "high")]
    expected = factor * (np.quantile(differences, [0.025, 0.975]) - interval["difference"])
    assert found == pytest.approx(expected, rel=1e-3)


def test_one_image_has_no_interval(spec):
    assert difference_interval(*scored(spec, [0.1, 0.2], images=1), seed=0) is None


def test_a_mask_of_another_size_is_refused(pairs, spec):
    mask = min(pairs[1].iterdir())
    with pytest.raises(InputError, match="differs from that of photo"):
        true_labels(Sample("photo", None, mask), spec, (48, 65))
