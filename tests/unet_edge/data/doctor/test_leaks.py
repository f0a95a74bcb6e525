"""The same picture on both sides of a split, in more or less disguise."""

from __future__ import annotations

import shutil

import numpy as np
import pytest
from PIL import Image, ImageEnhance

from unet_edge.data.doctor.leaks import find_leaks
from unet_edge.data.doctor.splits import SplitOptions, make_split
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.data.split import Split


@pytest.fixture
def apart(brain):
    """A dozen slices far from each other."""
    return brain[::2]


def again(pair, folder, name, change=None, **options):
    """Another file of the same picture; its mask is the same file."""
    path = folder / name
    if change is None:
        shutil.copy(pair.image, path)
    else:
        change(Image.open(pair.image).convert("RGB")).save(path, **options)
    return Pair(path.stem, path, pair.mask)


DISGUISES = {
    "copy.png": (None, {}),
    "jpeg.jpg": (lambda image: image, {"quality": 40}),
    "smaller.png": (lambda image: image.resize((image.width * 2 // 3, image.height * 2 // 3)), {}),
    "brighter.png": (lambda image: ImageEnhance.Brightness(image).enhance(1.2), {}),
}


@pytest.mark.parametrize("name", DISGUISES)
def test_a_twin_on_the_other_side_is_a_leak(apart, look, tmp_path, name):
    change, options = DISGUISES[name]
    twin = again(apart[5], tmp_path, name, change, **options)
    (leak,) = find_leaks(look([*apart, twin]), Split(apart, [twin]))
    assert leak.kind == "leak"
    assert leak.pairs == (twin,)
    assert leak.twins == ((twin, apart[5]),)
    assert "1 of 1 validation images" in leak.text
    assert ("1 of them the same file" in leak.text) == (name == "copy.png")


def test_a_twin_on_the_same_side_counts_double(apart, look, tmp_path):
    twin = again(apart[5], tmp_path, "copy.png")
    (duplicate,) = find_leaks(look([*apart, twin]), Split([*apart[1:], twin], apart[:1]))
    assert duplicate.kind == "duplicate"
    assert duplicate.pairs == (twin,)


def test_different_pictures_are_no_twins(apart, look):
    assert find_leaks(look(apart), Split(apart[2:], apart[:2])) == []


def test_flat_pictures_are_no_twins(folders, look, save, two_classes):
    for number in range(12):
        flat = np.full((40, 40), 5 + number, np.uint8)
        flat[:, 20:] += 1  # noise of the sensor, not a picture
        save(folders[0] / f"{number}.png", flat)
        save(folders[1] / f"{number}.png", two_classes(1, 40, 40))
    pairs, _ = pair_files(*folders)
    assert find_leaks(look(pairs), Split(pairs[1:], pairs[:1])) == []


def test_one_picture_with_two_masks_is_a_contradiction(apart, look, tmp_path):
    twin = again(apart[5], tmp_path, "copy.png")
    other = Pair("copy", twin.image, apart[6].mask)
    kinds = [s.kind for s in find_leaks(look([*apart, other]), Split([*apart, other], []))]
    assert kinds == ["duplicate", "contradiction"]


def test_slices_divided_at_random_leak_and_a_block_does_not(real_data, look):
    folder = real_data("isbi2012")
    pairs, _ = pair_files(folder / "images", folder / "masks")
    seen = look(pairs)
    (leak,) = find_leaks(seen, make_split(pairs, SplitOptions(validation=20)))
    assert leak.kind == "leak"
    assert "--val-list" in leak.text
    assert find_leaks(seen, Split(pairs[:20], pairs[20:])) == []


@pytest.mark.slow
def test_cars_divided_at_random_leak_and_by_car_do_not(real_data, look):
    folder = real_data("carvana")
    pairs, _ = pair_files(folder / "images", folder / "masks")
    pairs = pairs[:128]
    seen = look(pairs)
    leak = find_leaks(seen, make_split(pairs, SplitOptions()))[0]
    assert leak.kind == "leak"
    assert "--group-by '^[^_]+'" in leak.text
    assert all(val.name.split("_")[0] == train.name.split("_")[0] for val, train in leak.twins)
    assert find_leaks(seen, make_split(pairs, SplitOptions(group_by="^[^_]+"))) == []


def test_names_alone_are_no_groups(real_data, look):
    """Groups that do not look alike do not leak."""
    folder = real_data("dsb2018")
    pairs, _ = pair_files(folder / "images", folder / "masks")
    chosen = [pair for pair in pairs if Image.open(pair.image).size == (256, 256)][:40]
    named = [Pair(f"g{n % 8}_{n}", pair.image, pair.mask) for n, pair in enumerate(chosen)]
    assert find_leaks(look(named), Split(named[8:], named[:8])) == []
