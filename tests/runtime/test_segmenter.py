"""The one place where reading, preparing, running and deciding meet."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unet_edge_runtime.errors import BackendError, InputError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.segmenter import Segmenter, padded_size


def bright(batch):
    """Logits of a network that finds what is brighter than one half."""
    grey = batch.mean(axis=1, keepdims=True) * 8 - 4
    return np.concatenate([-grey, grey], axis=1)


@pytest.fixture
def scene(tmp_path):
    """A file with a bright square on black, and its labels."""
    labels = np.zeros((50, 70), np.uint8)
    labels[10:30, 20:50] = 1
    path = tmp_path / "scene.png"
    Image.fromarray(np.stack([labels * 255] * 3, axis=-1)).save(path)
    return path, labels


def test_image_in_mask_out(make_spec, function_backend, scene, tmp_path):
    path, labels = scene
    backend = function_backend(make_spec(multiple=16), bright)
    result = Segmenter(backend).segment(path)
    assert backend.shapes == [(1, 3, 64, 80)]
    assert result.output.shape == (2, 50, 70)
    np.testing.assert_array_equal(result.labels, labels)
    result.save(tmp_path / "mask.png")
    np.testing.assert_array_equal(np.asarray(Image.open(tmp_path / "mask.png")), labels * 255)
    assert result.overlay.size == (70, 50)
    np.testing.assert_array_equal(result.probabilities.argmax(0), labels)


def test_an_array_is_treated_like_its_file(make_spec, function_backend, scene):
    segmenter = Segmenter(function_backend(make_spec(scale=0.5), bright))
    result = segmenter.segment(scene[0])
    assert result.output.shape == (2, 25, 35)
    assert result.labels.shape == (50, 70)
    np.testing.assert_array_equal(segmenter.segment(read_image(scene[0])).labels, result.labels)


@pytest.mark.parametrize(
    "array", [np.zeros((5, 5), np.int64), np.zeros((3, 50, 70), np.uint8), np.zeros(5), np.zeros((0, 5))]
)
def test_an_array_that_is_no_image_is_refused(make_spec, function_backend, array):
    """Whole numbers of 64 bits, say, would go to the network undivided."""
    with pytest.raises(InputError, match="the image: "):
        Segmenter(function_backend(make_spec(), bright)).segment(array)


def test_a_fixed_size_pads_small_images_and_tiles_large_ones(make_spec, function_backend, scene):
    path, labels = scene
    for size in ((64, 96), (48, 80), (32, 32), (16, 96), (64, 16)):
        backend = function_backend(make_spec(input_size=size), bright)
        np.testing.assert_array_equal(Segmenter(backend).segment(path).labels, labels)
        assert set(backend.shapes) == {(1, 3, *size)}


def test_one_pixel(make_spec, function_backend):
    for fields in ({}, {"input_size": (32, 32)}, {"scale": 0.1}):
        backend = function_backend(make_spec(multiple=16, **fields), bright)
        assert Segmenter(backend).segment(np.full((1, 1, 3), 255, np.uint8)).labels.tolist() == [[1]]


def test_a_class_map_cannot_be_blended(make_spec, function_backend, scene):
    def classmap(batch):
        return (batch.mean(axis=1) > 0.5).astype(np.int32)

    spec = make_spec(head="classmap", input_size=(64, 96))
    np.testing.assert_array_equal(Segmenter(function_backend(spec, classmap)).segment(scene[0]).labels, scene[1])
    small = function_backend(spec.replace(input_size=(32, 32)), classmap)
    with pytest.raises(InputError, match=r"50x70 .* takes 32x32: export with --head logits"):
        Segmenter(small).segment(scene[0])


def test_thresholds(make_spec, function_backend, scene):
    ramp = np.tile(np.linspace(0, 1, 64, dtype=np.float32), (16, 1))[:, :, None].repeat(3, axis=2)
    counts = [
        Segmenter(function_backend(make_spec(), bright), threshold).segment(ramp).labels.sum()
        for threshold in (0.01, 0.5, 0.99)
    ]
    assert counts[0] > counts[1] > counts[2] > 0
    for threshold in (0.0, 1.0, -1.0, 2.0, float("nan")):
        with pytest.raises(InputError, match="between 0 and 1"):
            Segmenter(function_backend(make_spec(), bright), threshold)
    with pytest.raises(InputError, match="needs a two-class model; a function has 3 classes"):
        Segmenter(function_backend(make_spec((0, 1, 2)), bright), 0.5)
    with pytest.raises(InputError, match="already decided"):
        Segmenter(function_backend(make_spec(head="classmap"), bright), 0.5)


def test_a_network_that_returns_nan_gives_no_mask(make_spec, function_backend, scene, tmp_path):
    """Every comparison with NaN is false: the mask would be all background, and look like an answer."""
    result = Segmenter(function_backend(make_spec(), lambda batch: bright(batch) * np.nan)).segment(scene[0])
    with pytest.raises(BackendError, match="the network returned NaN"):
        result.save(tmp_path / "mask.png")
    assert not (tmp_path / "mask.png").exists()


def test_what_a_backend_takes_and_returns_is_checked(make_spec, function_backend):
    backend = function_backend(make_spec(), bright)
    good = np.zeros((2, 3, 8, 8), np.float32)
    assert backend.run(good).shape == (2, 2, 8, 8)
    for bad in (good[0], good[:, :2], good.astype(np.float64), good[:, :, :7], good[:, :, :, :6], good[:0]):
        with pytest.raises(ValueError, match=r"expected|multiples of 4"):
            backend.run(bad)
    with pytest.raises(ValueError, match=r"takes images of \(16, 16\) only"):
        function_backend(make_spec(input_size=(16, 16)), bright).run(good)
    with pytest.raises(BackendError, match=r"returned shape \(2, 2, 8, 4\), expected \(2, 2, 8, 8\)"):
        function_backend(make_spec(), lambda batch: bright(batch)[:, :, :, ::2]).run(good)


def test_padded_size():
    assert padded_size((1, 16), 16) == (16, 16)
    assert padded_size((640, 959), 16) == (640, 960)
