"""From logits to labels: equal to the seed's interpolate, then argmax or sigmoid, then threshold."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn.functional import interpolate

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.transform import postprocess, probabilities

SIZES = [((24, 36), (48, 72)), ((24, 36), (24, 36)), ((31, 47), (64, 96)), ((20, 30), (67, 101)), ((1, 1), (5, 7))]


def smooth(channels, size, seed=0):
    """Logits with structure: noise on a coarse grid, interpolated."""
    coarse = torch.randn(1, channels, 6, 8, generator=torch.Generator().manual_seed(seed)) * 4
    return interpolate(coarse, size, mode="bicubic")[0].numpy()


def seed_labels(logits, size, threshold=0.5):
    """The seed's `predict_img`, without its network."""
    output = interpolate(torch.from_numpy(logits)[None], size, mode="bilinear")
    mask = output.argmax(dim=1) if len(logits) > 1 else torch.sigmoid(output) > threshold
    return mask[0].long().squeeze(0).numpy().reshape(size)


@pytest.mark.parametrize("outputs", [1, 2, 3, 5])
@pytest.mark.parametrize(("small", "large"), SIZES)
def test_labels_are_the_seeds(make_spec, outputs, small, large):
    spec = make_spec(tuple(range(max(2, outputs))), outputs=outputs)
    logits = smooth(outputs, small)
    before = logits.copy()
    labels = postprocess(logits, spec, large)
    assert labels.dtype == np.uint8
    # Rounding may turn a pixel whose two best logits are equal to 1e-6.
    assert (labels != seed_labels(logits, large)).mean() <= 2e-4
    np.testing.assert_array_equal(logits, before)


def test_where_pillow_and_torch_part(make_spec):
    """Made smaller, torch looks at four pixels and Pillow at all of them; enlarged, they are the same."""
    logits = smooth(2, (64, 96))
    assert (postprocess(logits, make_spec(), (128, 192)) != seed_labels(logits, (128, 192))).sum() == 0
    noisy = logits + np.random.default_rng(0).normal(0, 3, logits.shape).astype(np.float32)
    ours = postprocess(noisy, make_spec(), (16, 24))
    assert (ours != seed_labels(noisy, (16, 24))).mean() > 0.05
    averaged = interpolate(torch.from_numpy(noisy)[None], (16, 24), mode="bilinear", antialias=True)
    assert (ours != averaged.argmax(1)[0].numpy()).sum() == 0


@pytest.mark.parametrize("threshold", [0.05, 0.5, 0.9])
def test_the_threshold_is_a_probability_for_one_output_and_for_two(make_spec, threshold):
    single = smooth(1, (24, 36))
    pair = np.concatenate([np.zeros_like(single), single])
    size = (48, 72)
    wanted = seed_labels(single, size, threshold)
    for logits, spec in ((single, make_spec(outputs=1)), (pair, make_spec())):
        np.testing.assert_array_equal(postprocess(logits, spec, size, threshold), wanted)
        np.testing.assert_array_equal(postprocess(logits, spec.replace(threshold=threshold), size), wanted)
        positive = probabilities(logits, spec, size)[1]
        np.testing.assert_allclose(positive[wanted == 1].min(), max(threshold, positive[wanted == 1].min()))
        assert positive[wanted == 0].max() <= threshold + 1e-6


def test_a_tie_goes_to_the_first_class_as_argmax_does(make_spec):
    for values in ((0, 1), (0, 1, 2)):
        assert not postprocess(np.ones((len(values), 4, 4), np.float32), make_spec(values), (8, 8)).any()


def test_probabilities_head(make_spec):
    logits = smooth(2, (24, 36))
    softmax = torch.softmax(torch.from_numpy(logits), 0).numpy()
    spec = make_spec(head="probabilities")
    np.testing.assert_array_equal(postprocess(softmax, spec, (24, 36)), logits.argmax(0))
    np.testing.assert_array_equal(postprocess(softmax, spec, (24, 36), 0.8), softmax[1] > 0.8)
    np.testing.assert_allclose(probabilities(softmax, spec, (24, 36)), softmax, atol=1e-6)
    one = make_spec(head="probabilities", outputs=1)
    np.testing.assert_array_equal(postprocess(softmax[1:], one, (24, 36), 0.8), softmax[1] > 0.8)


def test_classmap_head(make_spec):
    spec = make_spec((0, 1, 2), head="classmap")
    labels = np.arange(12, dtype=np.float32).reshape(1, 3, 4) % 3
    np.testing.assert_array_equal(postprocess(labels, spec, (6, 8)), np.kron(labels[0], np.ones((2, 2))))
    with pytest.raises(InputError, match="class map without probabilities"):
        probabilities(labels, spec, (6, 8))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("outputs", [1, 2, 4])
def test_probabilities_sum_to_one_even_for_extreme_logits(make_spec, outputs):
    spec = make_spec(tuple(range(max(2, outputs))), outputs=outputs)
    logits = smooth(outputs, (12, 18)) * 1000
    result = probabilities(logits, spec, (24, 36))
    assert result.shape == (max(2, outputs), 24, 36)
    assert result.min() >= 0
    np.testing.assert_allclose(result.sum(axis=0), 1, atol=1e-5)
