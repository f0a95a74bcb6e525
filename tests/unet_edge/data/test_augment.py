"""Image and labels move together, nothing is invented, and everything follows from the seed."""

import random

import numpy as np
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge.data import augment as augment_module
from unet_edge.data import warp as warp_module
from unet_edge.data.augment import LEVELS, Augmenter
from unet_edge.data.intensity import Intensity
from unet_edge.data.warp import Warp, draw_window, warped
from unet_edge_runtime.errors import InputError, MissingExtraError
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec
from unet_edge_runtime.transform import normalise

BUSY = [level for level, parts in LEVELS.items() if parts]


def make_spec(channels=3, **changes):
    return ModelSpec(channels=channels, classes=class_infos([0, 1]), outputs=2, multiple=16, **changes)


def marked(height=96, width=128, dtype=np.uint8, channels=3):
    """Discs that are bright exactly where the label is 1; a bar, brightest of all, whose label is to be ignored."""
    y, x = np.mgrid[:height, :width]
    labels = np.zeros((height, width), np.uint8)
    for cy, cx in ((0.25, 0.2), (0.6, 0.75), (0.8, 0.3)):
        labels[(y - cy * height) ** 2 + (x - cx * width) ** 2 < (height / 9) ** 2] = 1
    labels[:, int(width * 0.45) : int(width * 0.52)] = IGNORE_LABEL
    plane = np.select([labels == 0, labels == 1], [0.2, 0.6], 1.0)
    top = 1 if dtype == np.float32 else np.iinfo(dtype).max
    image = np.repeat((plane * top)[:, :, None], channels, axis=2).astype(dtype)
    return np.dstack([image, labels.astype(dtype)])


@pytest.mark.parametrize("level", BUSY)
@pytest.mark.parametrize("crop", [None, (64, 64)])
def test_labels_move_with_the_image(level, crop):
    augmenter = Augmenter(make_spec(), level, "both", crop)
    prepared, positions, outside = marked(), set(), 0
    for seed in range(40):
        x, labels = augmenter(prepared, random.Random(seed))
        assert x.shape[1:] == labels.shape == (crop or (96, 128))
        assert x.dtype == np.float32
        assert set(np.unique(labels)) <= {0, 1, IGNORE_LABEL}
        outside += (labels == IGNORE_LABEL).mean() > 0.15  # the bar alone takes less
        grey = x.mean(axis=0)
        if not ((labels == 0).sum() > 200 and (labels == 1).sum() > 200):
            continue
        middle = (np.median(grey[labels == 0]) + np.median(grey[labels == 1])) / 2
        agree = ((grey > middle) == (labels == 1))[labels != IGNORE_LABEL]
        assert agree.mean() > 0.95  # noise, blur and interpolated edges
        positions.add(tuple(np.argwhere(labels == 1).mean(axis=0).round().astype(int)))
    assert len(positions) > 15
    assert outside > 2


@pytest.mark.parametrize("level", BUSY)
def test_what_is_not_drawn_is_ignored_and_mirrored(level):
    """A white image without black: what comes from outside its edges is image too, but has no label."""
    prepared = np.dstack([np.full((60, 80, 3), 250, np.uint8), np.ones((60, 80), np.uint8)])
    prepared[::7, :, :3] = 200
    warp = LEVELS[level][0]
    seen = False
    for seed in range(20):
        x, labels = warped(prepared, (slice(0, 60), slice(0, 80)), warp, random.Random(seed), make_spec())
        assert set(np.unique(labels)) <= {1, IGNORE_LABEL}
        assert float(x.min()) >= 200 / 255 - 1e-3
        seen |= bool((labels == IGNORE_LABEL).any())
    assert seen


def test_a_warp_that_does_not_move_changes_nothing():
    prepared, still = marked(), Warp(1, (1, 1), 0)
    for window in ((slice(0, 96), slice(0, 128)), (slice(7, 60), slice(31, 128))):
        x, labels = warped(prepared, window, still, random.Random(0), make_spec())
        np.testing.assert_allclose(x.numpy(), normalise(prepared[window][:, :, :3], make_spec()), atol=1e-5)
        assert np.array_equal(labels, prepared[window][:, :, 3])


def test_a_crop_shows_the_same_as_the_whole_image_would():
    """Only the part that is seen is converted; that must not be seen in turn."""
    prepared, turned = marked(200, 300), Warp(1, (1.2, 1.2), 12, shear=4)
    window = slice(60, 140), slice(100, 220)
    x, labels = warped(prepared, window, turned, random.Random(5), make_spec())
    framed = np.pad(prepared, [(500, 500), (500, 500), (0, 0)])
    moved = tuple(slice(side.start + 500, side.stop + 500) for side in window)
    y, others = warped(framed, moved, turned, random.Random(5), make_spec())
    np.testing.assert_allclose(x, y, atol=2e-3)
    assert (labels == others).mean() > 0.999


def test_zoom_rotation_and_shift_do_what_their_names_say():
    prepared = np.zeros((81, 81, 2), np.uint8)
    prepared[40, 60] = 1
    whole = slice(0, 81), slice(0, 81)

    def place(warp):
        labels = warped(prepared, whole, warp, random.Random(0), make_spec(1))[1]
        return np.argwhere(labels == 1).mean(axis=0)

    down, right = place(Warp(1, (1.5, 1.5), 0))
    assert (down, right) == pytest.approx((40, 40 + 20 * 1.5), abs=1)
    down, right = place(Warp(1, (1, 1), 30))
    assert np.hypot(down - 40, right - 40) == pytest.approx(20, abs=1)
    assert abs(down - 40) > 1
    down, right = place(Warp(1, (1, 1), 0, shift=0.2))
    assert max(abs(down - 40), abs(right - 60)) > 1


def test_elastic_deformation_is_as_strong_in_both_directions():
    """A gradient along each axis shows how far pixels moved along it."""
    ramp = np.zeros((120, 360, 3), np.float32)
    ramp[:, :, 0], ramp[:, :, 1] = np.arange(120)[:, None] / 400, np.arange(360) / 400
    whole, spec = (slice(0, 120), slice(0, 360)), make_spec(1)
    moved = [[], []]
    for seed in range(20):
        for axis in (0, 1):
            x, _ = warped(ramp[:, :, [axis, 2]], whole, Warp(1, (1, 1), 0, elastic=0.02), random.Random(seed), spec)
            moved[axis].append((x[0].numpy() - ramp[:, :, axis])[20:-20, 20:-20].std() * 400)
    assert np.mean(moved[0]) == pytest.approx(np.mean(moved[1]), rel=0.3)
    assert 0.5 * 0.02 * 120 < np.mean(moved) < 1.2 * 0.02 * 120


def test_elastic_deformation_is_as_smooth_as_bicubic_interpolation(monkeypatch):
    ramp = np.zeros((240, 360, 2), np.float32)
    ramp[:, :, 0] = np.arange(360) / 400
    whole, bent, moved = (slice(0, 240), slice(0, 360)), Warp(1, (1, 1), 0, elastic=0.02), []
    for steps in (warp_module.STEPS, 10**6):  # the second one: none of it is linear
        monkeypatch.setattr(warp_module, "STEPS", steps)
        moved.append(warped(ramp, whole, bent, random.Random(3), make_spec(1))[0].numpy() * 400)
    assert np.abs(moved[0] - moved[1]).max() < 0.03 * 0.02 * 240


@pytest.mark.parametrize("level", LEVELS)
def test_everything_follows_from_the_seed(level):
    augmenter = Augmenter(make_spec(), level, "both", (50, 60))
    prepared = marked()
    results = [augmenter(prepared, random.Random(seed)) for seed in range(6)]
    torch.manual_seed(5)
    np.random.seed(5)
    before = torch.random.get_rng_state()
    for seed in reversed(range(6)):
        again = augmenter(prepared, random.Random(seed))
        assert all(np.array_equal(a, b) for a, b in zip(again, results[seed], strict=True))
    assert torch.equal(before, torch.random.get_rng_state())
    assert not all(np.array_equal(results[0][0], other[0]) for other in results[1:])


@pytest.mark.parametrize("level", BUSY)
def test_the_number_of_threads_changes_no_bit(level):
    augmenter, prepared = Augmenter(make_spec(), level, "both"), marked(300, 400)
    threads, found = torch.get_num_threads(), []
    try:
        for count in (1, 4):
            torch.set_num_threads(count)
            found.append([augmenter(prepared, random.Random(seed)) for seed in range(8)])
            assert torch.get_num_threads() == count
    finally:
        torch.set_num_threads(threads)
    for one, four in zip(*found, strict=True):
        assert all(np.array_equal(a, b) for a, b in zip(one, four, strict=True))


@pytest.mark.parametrize("level", BUSY)
@pytest.mark.parametrize(("dtype", "channels"), [(np.uint8, 1), (np.uint8, 4), (np.uint16, 1), (np.float32, 3)])
@pytest.mark.parametrize("size", [(96, 128), (1, 1), (3, 2), (1, 40)])
def test_every_kind_of_image_can_be_augmented(level, dtype, channels, size):
    augmenter = Augmenter(make_spec(channels), level, "both")
    prepared = marked(*size, dtype=dtype, channels=channels)
    before = prepared.copy()
    for seed in range(12):
        x, labels = augmenter(prepared, random.Random(seed))
        assert x.shape == (channels, *labels.shape)
        assert sorted(labels.shape) == sorted(size)
        assert np.isfinite(x).all()
        assert x.min() >= -1e-6
        assert x.max() <= 1 + 1e-6
    assert np.array_equal(prepared, before)


def test_a_dark_image_of_sixteen_bits_stays_dark_and_still_changes():
    prepared = marked(dtype=np.uint16, channels=1)
    prepared[:, :, 0] //= 50
    augmenter = Augmenter(make_spec(1, bits=16), "strong")
    results = [augmenter(prepared, random.Random(seed))[0] for seed in range(20)]
    assert max(x.max() for x in results) <= 0.02 + 1e-6
    assert np.std([x.mean() for x in results]) > 1e-4


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_brightness_contrast_and_gamma_are_those_of_kornia(channels):
    from kornia.enhance import adjust_brightness, adjust_contrast_with_mean_subtraction, adjust_gamma

    image = torch.rand(channels, 20, 30, generator=torch.Generator().manual_seed(0))
    image = (image - image.min()) / (image.max() - image.min())
    before = image.clone()
    for seed in range(10):
        choice = random.Random(seed)
        expected = adjust_brightness(image[None], choice.uniform(-0.2, 0.2))
        expected = adjust_contrast_with_mean_subtraction(expected, 1 + choice.uniform(-0.4, 0.4))
        expected = adjust_gamma(expected, np.exp(choice.uniform(-0.3, 0.3)).item())[0]
        changed = Intensity(1, 0.2, 0.4, 0.3).change(image, random.Random(seed))
        torch.testing.assert_close(changed, expected, atol=1e-5, rtol=0)
    assert torch.equal(image, before)


def test_alpha_is_moved_but_not_recoloured():
    change = LEVELS["strong"][1]
    image = torch.rand(4, 20, 30, generator=torch.Generator().manual_seed(0))
    for seed in range(10):
        changed = change.change(image, random.Random(seed))
        assert torch.equal(changed[3], image[3])
        assert not torch.equal(changed[:3], image[:3])


def test_a_grey_picture_in_three_channels_gets_no_hue_from_a_turn_of_colours():
    grey = torch.rand(1, 20, 30, generator=torch.Generator().manual_seed(0)).repeat(3, 1, 1)
    changed = Intensity(1, 0, 0, 0, saturation=0.5, hue=40).change(grey, random.Random(1))
    torch.testing.assert_close(changed, grey, atol=1e-5, rtol=0)


def test_mean_and_standard_deviation_come_last():
    scaled = make_spec(mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4))
    for level in LEVELS:
        x, _ = Augmenter(make_spec(), level, "both")(marked(), random.Random(11))
        y, _ = Augmenter(scaled, level, "both")(marked(), random.Random(11))
        mean, std = (np.array(values)[:, None, None] for values in (scaled.mean, scaled.std))
        np.testing.assert_allclose(y, (x - mean) / std, atol=1e-5)


def test_quarter_turns_only_where_the_shape_stays():
    def turned(level, flip, size, crop):
        augmenter = Augmenter(make_spec(1), level, flip, crop)
        prepared = np.zeros((*size, 2), np.uint8)
        prepared[: size[0] // 2, : size[1] // 2, 1] = 1  # one corner
        prepared[0, : size[1] // 2, 1] = 0  # and which of its sides is which
        shapes = set()
        for seed in range(60):
            labels = augmenter(prepared, random.Random(seed))[1]
            shapes.add(labels.shape)
        return shapes

    assert turned("light", "both", (40, 60), None) == {(40, 60)}
    assert turned("light", "both", (40, 60), (50, 50)) == {(40, 50), (50, 40)}
    assert turned("light", "horizontal", (40, 60), (50, 50)) == {(40, 50)}
    assert turned("none", "both", (40, 60), (50, 50)) == {(40, 50)}


def test_windows_lie_inside_and_reach_both_ends():
    tops = set()
    for seed in range(200):
        rows, columns = draw_window(random.Random(seed), (10, 20), (7, 30))
        assert rows.stop - rows.start == 7
        assert columns == slice(0, 20)
        tops.add(rows.start)
    assert tops == {0, 1, 2, 3}


def test_without_kornia_the_extra_is_named_and_flips_still_work(monkeypatch):
    monkeypatch.setattr(augment_module.importlib.util, "find_spec", lambda name: None)
    with pytest.raises(MissingExtraError, match=r"unet-edge\[train\]"):
        Augmenter(make_spec(), "light")
    Augmenter(make_spec(), "none", "both", (32, 32))(marked(), random.Random(0))


def test_an_unknown_level_is_refused():
    with pytest.raises(InputError, match="none, light, strong"):
        Augmenter(make_spec(), "medium")
