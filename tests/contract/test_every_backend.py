"""What every backend promises, none exempt."""

from __future__ import annotations

import shutil

import numpy as np
import pytest

from unet_edge_runtime import Segmenter, load_backend
from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.scores import Agreement

SIZE = (32, 48)


def pictures(count, size=SIZE, seed=0):
    """(N, 3, H, W) float32 of 8-bit values, as `preprocess` makes them."""
    blocks = np.random.default_rng(seed).integers(0, 256, (count, 3, 12, 12), dtype=np.uint8)
    pixels = blocks.repeat(5, axis=2).repeat(5, axis=3)[:, :, : size[0], : size[1]]
    return pixels.astype(np.float32) / 255


def test_it_says_what_it_is(case):
    backend = case.open()
    assert backend.name == case.backend
    assert backend.path == case.path
    assert backend.spec.class_names == ["class 0", "class 1"]
    assert backend.spec.input_size == case.size


@pytest.mark.parametrize("count", [1, 3])
def test_logits_are_pytorchs(case, checkpoint, count):
    batch = pictures(count)
    before = batch.copy()
    logits = case.open().run(batch)
    assert logits.shape == (count, 2, *SIZE)
    assert logits.dtype == np.float32
    np.testing.assert_array_equal(batch, before)
    reference = load_backend(checkpoint).run(batch)
    assert np.abs(logits - reference).max() < 1e-4
    assert np.ptp(reference) > 3


def test_images_of_a_batch_do_not_touch(case):
    backend = case.open()
    batch = pictures(3)
    together = backend.run(batch)
    for one, image in zip(together, batch, strict=True):
        np.testing.assert_allclose(backend.run(image[None])[0], one, atol=1e-5)


def test_a_view_in_another_order_is_the_same_batch(case):
    backend = case.open()
    batch = pictures(2)
    odd = np.asfortranarray(batch)
    np.testing.assert_allclose(backend.run(odd), backend.run(batch), atol=1e-6)


def test_other_sizes(case, checkpoint):
    batch = pictures(1, (16, 20))
    if case.size:
        with pytest.raises(ValueError, match=r"takes images of \(32, 48\) only, got \(16, 20\)"):
            case.open().run(batch)
    else:
        np.testing.assert_allclose(case.open().run(batch), load_backend(checkpoint).run(batch), atol=1e-4)


@pytest.mark.parametrize(
    "batch",
    [
        pictures(1)[0],
        pictures(1)[:, :1],
        pictures(1).astype(np.float64),
        (pictures(1) * 255).astype(np.uint8),
        pictures(0),
        pictures(1, (30, 48)),
        pictures(1, (32, 47)),
    ],
    ids=["no batch", "one channel", "float64", "uint8", "empty", "height", "width"],
)
def test_what_does_not_fit_is_refused_before_it_runs(case, batch):
    with pytest.raises(
        ValueError, match=r"expected \(N, 3, H, W\) float32, got|takes images of|must be multiples of 4"
    ):
        case.open().run(batch)


def test_labels_of_a_photo_are_pytorchs(case, checkpoint, photo):
    photo = photo[: SIZE[0], : SIZE[1]]
    agreement = Agreement()
    ours = Segmenter(case.open()).segment(photo)
    reference = Segmenter.open(checkpoint).segment(photo)
    agreement.add(reference.output, ours.output, reference.labels, ours.labels)
    assert agreement.equal_labels >= 0.99999
    assert 0.01 < reference.labels.mean() < 0.99


@pytest.mark.parametrize("size", [(50, 70), (7, 9), (32, 100)])
def test_any_image_gets_a_mask_of_its_size(case, photo, size):
    image = np.resize(photo, (*size, 3))
    assert Segmenter(case.open()).segment(image).mask.size == size[::-1]


@pytest.mark.parametrize("spoil", ["missing", "empty", "garbage", "truncated"])
def test_a_bad_file_is_named(case, tmp_path, spoil):
    path = tmp_path / f"bad{case.path.suffix}"
    if spoil != "missing":
        copy = shutil.copytree if case.path.is_dir() else shutil.copy
        copy(case.path, path)
        content = path / "model" if path.is_dir() else path
        whole = content.read_bytes()
        content.write_bytes({"empty": b"", "garbage": b"garbage" * 99, "truncated": whole[: len(whole) // 2]}[spoil])
    with pytest.raises(ModelFileError) as caught:
        case.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_file_that_unet_edge_did_not_make_is_refused(case):
    with pytest.raises(ModelFileError) as caught:
        case.open(case.foreign)
    assert str(case.foreign) in str(caught.value)
    assert "unet-edge" in str(caught.value)
