from __future__ import annotations

import math

import numpy as np
import pytest

from unet_edge_bench.stats import (
    Estimate,
    expansion,
    median_interval,
    outliers,
    paired_ratio,
    percentiles,
    t_quantile,
    unpaired_ratio,
    verdict,
)


def measured(generator, launches=5, rounds=5, shift=0.0, launch=0.03, noise=0.03, shared=0.0):
    """Turns around 50 ms: each launch has its own level, and now and then a turn is disturbed."""
    level = generator.normal(0, launch, (launches, 1)) + generator.normal(0, noise, (launches, rounds))
    disturbed = (generator.random((launches, rounds)) < 0.05) * generator.exponential(0.5, (launches, rounds))
    return (50 * np.exp(level + disturbed + shift + shared)).tolist()


def test_the_interval_holds_the_truth_as_often_as_it_says():
    generator = np.random.default_rng(1)
    inside = []
    for seed in range(200):
        turns = 50 * np.exp(generator.normal(0, 0.03, (5, 1)) + generator.normal(0, 0.03, (5, 5)))
        found = median_interval(turns.tolist(), seed)
        inside.append(found.low <= 50 <= found.high)
    assert np.mean(inside) >= 0.93  # the plain percentile interval holds it in 85 %


def test_the_same_thing_twice_is_not_different():
    generator = np.random.default_rng(2)
    words = []
    for seed in range(200):
        shared = generator.normal(0, 0.1, (5, 1)) + generator.normal(0, 0.1, (5, 5))
        words.append(verdict(measured(generator, shared=shared), measured(generator, shared=shared), seed)[1])
    assert sum(word != "cannot tell" for word in words) < 0.05 * len(words)


def test_a_tenth_is_found():
    generator = np.random.default_rng(3)
    words = []
    for seed in range(50):
        quick = measured(generator, launch=0.01, noise=0.02)
        slow = measured(generator, launch=0.01, noise=0.02, shift=math.log(1.1))
        words.append((verdict(quick, slow, seed)[1], verdict(slow, quick, seed)[1]))
    assert words.count(("faster", "slower")) > 45


def test_what_slows_both_cancels_in_the_ratio():
    generator = np.random.default_rng(4)
    shared = generator.normal(0, 0.5, (5, 5))
    quick = measured(generator, launch=0.01, noise=0.01, shared=shared)
    slow = measured(generator, launch=0.01, noise=0.01, shared=shared, shift=math.log(1.2))
    ratio, word = verdict(slow, quick)
    assert ratio.median == pytest.approx(1.2, rel=0.03)
    assert ratio.low > 1.1
    assert unpaired_ratio(slow, quick).low < 1
    assert word == "cannot tell"  # the ratio is clear, but the medians' intervals overlap


def test_exchanging_the_two_inverts_the_ratio():
    generator = np.random.default_rng(5)
    first, second = measured(generator), measured(generator, shift=0.3)
    there, back = paired_ratio(first, second), paired_ratio(second, first)
    assert there.median == pytest.approx(1 / back.median)
    assert there.low == pytest.approx(1 / back.high)


def test_more_launches_narrow_the_interval_more_rounds_do_not():
    def width(launches, rounds):
        found = [
            median_interval(measured(np.random.default_rng(seed), launches, rounds, noise=0.005)) for seed in range(30)
        ]
        return np.median([math.log(one.high / one.low) for one in found])

    assert width(12, 4) < 0.6 * width(4, 4)
    assert width(4, 12) > 0.8 * width(4, 4)


def test_launches_of_different_length_and_none():
    assert median_interval([]) is None
    assert median_interval([[], []]) is None
    assert median_interval([[3.0], []]) == Estimate(pytest.approx(3.0), None, None)
    one_launch = median_interval([[3.0, 3.1, 2.9]])
    assert one_launch.low < 3.0 < one_launch.high
    ragged = median_interval([[3.0, 3.1, 2.9], [3.05], []])
    assert ragged.median == pytest.approx(3.025, abs=0.001)
    assert paired_ratio([[2.0, 2.0], [2.0]], [[1.0, 1.0, 1.0], []]).median == pytest.approx(2)


def test_unknown_intervals_decide_nothing():
    unknown, known = Estimate(1.0, None, None), Estimate(9.0, 8.0, 10.0)
    assert unknown.overlaps(known)
    assert known.overlaps(unknown)
    assert not unknown.excludes(5)
    assert known.excludes(5)
    assert verdict([[1.0]], [[9.0]])[1] == "cannot tell"


@pytest.mark.parametrize(("freedom", "value"), [(1, 12.7062), (2, 4.3027), (4, 2.7764), (29, 2.0452)])
def test_students_t(freedom, value):
    assert t_quantile(freedom) == pytest.approx(value, rel=1e-3)


def test_the_expansion_vanishes_with_many_launches():
    assert expansion(5) == pytest.approx(2.7764 / 1.95996 * math.sqrt(5 / 4), rel=1e-3)
    assert 1 < expansion(1000) < 1.01


def test_percentiles_and_outliers_of_raw_samples():
    samples = [*np.linspace(10, 12, 100), 40.0, 60.0]
    assert outliers(samples) == 2
    found = percentiles(samples)
    assert found["p5"] == pytest.approx(np.percentile(samples, 5))
    assert found["p99"] > 39
