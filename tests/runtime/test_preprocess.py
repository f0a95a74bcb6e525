"""Preprocessing: the seed's documented behaviour, and what goes beyond it."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.transform import bring_to_scale, pad_image, preprocess, scaled_size


def seed_preprocess(picture, scale):
    """The seed's: bicubic resize of the 8-bit image to int(scale * side), planes first, / 255 in double precision."""
    width, height = picture.size
    resized = picture.resize((int(scale * width), int(scale * height)), resample=Image.BICUBIC)
    array = np.asarray(resized)
    planes = array[np.newaxis] if array.ndim == 2 else array.transpose((2, 0, 1))
    return (planes / 255.0).astype(np.float32)


@pytest.mark.parametrize("scale", [1.0, 0.5, 0.25, 0.29, 0.77, 1.5])
def test_it_does_what_the_seed_documents(photo, make_spec, scale):
    np.testing.assert_array_equal(
        preprocess(photo, make_spec(scale=scale)), seed_preprocess(Image.fromarray(photo), scale)
    )
    grey = photo[:, :, 0]
    np.testing.assert_array_equal(
        preprocess(grey, make_spec(scale=scale, channels=1)), seed_preprocess(Image.fromarray(grey), scale)
    )


def test_on_a_real_photo(real_data, make_spec):
    path = sorted((real_data / "carvana").rglob("*.jpg"))[0]
    x = preprocess(read_image(path), make_spec(scale=0.5))
    assert x.shape == (3, 640, 959)
    np.testing.assert_array_equal(x, seed_preprocess(Image.open(path), 0.5))


@pytest.mark.parametrize(("dtype", "top"), [(np.uint8, 255), (np.uint16, 65535), (np.float32, 1)])
@pytest.mark.parametrize("scale", [1.0, 0.5])
def test_a_nearly_black_image_stays_so(make_spec, dtype, top, scale):
    """The seed leaves an image undivided when no value is above 1; here the type decides."""
    x = preprocess(np.ones((16, 16, 3), dtype), make_spec(scale=scale))
    np.testing.assert_allclose(x, 1 / top, rtol=1e-6)


def test_16_bits_are_resized_as_16_bits(make_spec):
    ramp = np.tile(np.arange(64, dtype=np.uint16) * 3 + 30000, (64, 1))
    x = preprocess(ramp, make_spec(channels=1, scale=0.5))
    middle = x[0, 16, 4:-4] * 65535
    np.testing.assert_allclose(np.diff(middle), 6, atol=1.01)
    extreme = np.kron(np.eye(4, dtype=np.uint16) * 65535, np.ones((4, 4), np.uint16))
    assert preprocess(extreme, make_spec(channels=1, scale=0.75)).min() >= 0
    assert preprocess(extreme, make_spec(channels=1, scale=0.75)).max() <= 1


def test_8_and_16_bits_of_one_picture_agree(photo, make_spec):
    deep = photo.astype(np.uint16) * 257
    for scale in (1.0, 0.5):
        spec = make_spec(scale=scale)
        np.testing.assert_allclose(preprocess(deep, spec), preprocess(photo, spec), atol=1.01 / 255)


def test_channels_become_the_models(photo, make_spec):
    alpha = np.concatenate([photo, np.zeros_like(photo[:, :, :1])], axis=-1)
    rgb, grey, rgba = make_spec(), make_spec(channels=1), make_spec(channels=4)
    np.testing.assert_array_equal(preprocess(alpha, rgb), preprocess(photo, rgb))
    luma = np.asarray(Image.fromarray(photo).convert("L"))
    np.testing.assert_array_equal(preprocess(photo, grey), preprocess(luma, grey))
    np.testing.assert_array_equal(preprocess(alpha, grey), preprocess(luma, grey))
    assert np.ptp(preprocess(luma, rgb), axis=0).max() == 0
    for opaque in (photo, luma, photo.astype(np.uint16), photo / np.float32(255)):
        assert (preprocess(opaque, rgba)[3] == 1).all()
    deep = preprocess(photo.astype(np.uint16) * 257, grey)
    np.testing.assert_allclose(deep, preprocess(luma, grey), atol=1.01 / 255)


def test_a_fourth_channel_does_not_touch_the_others(photo, make_spec):
    """Pillow resizes RGBA weighted by alpha, which blackens what is transparent: a network's channels are equals."""
    alpha = np.concatenate([photo, np.zeros_like(photo[:, :, :1])], axis=-1)
    both = make_spec(channels=4, scale=0.5), make_spec(scale=0.5)
    np.testing.assert_array_equal(preprocess(alpha, both[0])[:3], preprocess(photo, both[1]))


def test_mean_and_std(photo, make_spec):
    spec = make_spec(mean=(0.5, 0.25, 0.0), std=(0.5, 1.0, 2.0))
    plain = preprocess(photo, make_spec())
    np.testing.assert_allclose(
        preprocess(photo, spec),
        (plain - np.array(spec.mean)[:, None, None]) / np.array(spec.std)[:, None, None],
        atol=1e-6,
    )


def test_a_side_never_vanishes():
    assert scaled_size((3, 700), 0.1) == (1, 70)
    assert scaled_size((1280, 1918), 0.25) == (320, 479)


def test_a_scale_that_makes_an_image_enormous_is_refused(make_spec):
    with pytest.raises(InputError, match="cut it into pieces"):
        bring_to_scale(np.zeros((1 << 11, 1 << 11), np.uint8), make_spec(channels=1, scale=16.0))


@pytest.mark.parametrize("padding", ["reflect", "edge", "zero"])
def test_padding_goes_below_and_to_the_right(padding):
    x = np.arange(12, dtype=np.float32).reshape(1, 3, 4) + 1
    padded = pad_image(x, (8, 8), padding)
    np.testing.assert_array_equal(padded[:, :3, :4], x)
    expected = {"reflect": [3, 2, 1, 2], "edge": [4] * 4, "zero": [0] * 4}[padding]
    assert padded[0, 0, 4:].tolist() == expected
    assert pad_image(x, (3, 4), padding) is x


@pytest.mark.parametrize("padding", ["reflect", "edge", "zero"])
def test_even_one_pixel_can_be_padded(padding):
    assert pad_image(np.ones((3, 1, 1), np.float32), (16, 32), padding).shape == (3, 16, 32)
