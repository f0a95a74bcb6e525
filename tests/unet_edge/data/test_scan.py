from __future__ import annotations

import json
import os

import numpy as np
import pytest
from PIL import Image

from unet_edge.data import facts
from unet_edge.data.checks import prepare
from unet_edge.data.pairing import pair_files
from unet_edge.data.scan import check_values, scan_pairs
from unet_edge_runtime.errors import DatasetError
from unet_edge_runtime.mask import read_mask


def scan_folders(folders, **options):
    pairs, problems = pair_files(*folders)
    assert problems == []
    return scan_pairs(pairs, **options)


@pytest.fixture
def decodes(monkeypatch):
    """The files that are decoded, in no order."""
    seen = []
    for name in ("read_image", "read_mask", "_draft_facts"):
        original = getattr(facts, name)

        def counted(path, original=original, name=name):
            result = original(path)
            if result is not None:
                seen.append(f"{name} {path.name}")
            return result

        monkeypatch.setattr(facts, name, counted)
    return seen


# What is found in clean data sets


def test_sizes_channels_and_counts(folders, save, photo, two_classes):
    images, masks = folders
    save(images / "a.png", photo(10, 20))
    save(masks / "a.png", two_classes(255, 10, 20))
    for name in "bc":
        save(images / f"{name}.png", photo(8, 8))
        save(masks / f"{name}.png", two_classes(255, 8, 8))
    scan = scan_folders(folders)
    assert scan.problems == []
    assert list(scan.sizes.items()) == [((8, 8), 2), ((10, 20), 1)]
    assert scan.channels == 3
    assert scan.counts == {0: 164, 255: 164}
    assert scan.values_by_mask == {name: [0, 255] for name in "abc"}
    assert scan.classes == [0, 255]


def grey16(height, width):
    return np.add.outer(np.arange(height) * 300, np.arange(width)).astype(np.uint16)


IMAGES = {
    "grey8.png": (lambda photo: photo(channels=1), 1),
    "grey16.png": (lambda photo: grey16(12, 16), 1),
    "one_bit.png": (lambda photo: photo(channels=1) > 60, 1),
    "rgb.png": (lambda photo: photo(), 3),
    "rgba.png": (lambda photo: photo(channels=4), 3),
    "grey.jpg": (lambda photo: photo(channels=1), 1),
    "rgb.JPEG": (lambda photo: photo(), 3),
    "rgb.webp": (lambda photo: photo(), 3),
    "rgb.bmp": (lambda photo: photo(), 3),
    "grey16.tif": (lambda photo: grey16(12, 16), 1),
    "float.tif": (lambda photo: photo(channels=1).astype(np.float32) / 255, 1),
    "grey.npy": (lambda photo: photo(channels=1), 1),
    "last_axis.npy": (lambda photo: photo(channels=1)[:, :, None], 1),
    "rgb16.npy": (lambda photo: photo().astype(np.uint16), 3),
}


@pytest.mark.parametrize("name", IMAGES)
def test_every_image_format(folders, save, photo, two_classes, name):
    make, channels = IMAGES[name]
    save(folders[0] / name, make(photo))
    save(folders[1] / f"{name.rpartition('.')[0]}.png", two_classes())
    scan = scan_folders(folders)
    assert scan.problems == []
    assert scan.sizes == {(12, 16): 1}
    assert scan.channels == channels


def test_palette_image_is_colour(folders, save, photo, two_classes):
    Image.fromarray(photo()).quantize(16).save(folders[0] / "a.gif")
    save(folders[1] / "a.png", two_classes())
    assert scan_folders(folders).channels == 3


def test_one_colour_image_among_grey_ones_makes_three_channels(folders, save, photo, two_classes):
    for name, channels in (("a", 1), ("b", 1), ("c", 3)):
        save(folders[0] / f"{name}.png", photo(channels=channels))
        save(folders[1] / f"{name}.png", two_classes())
    assert scan_folders(folders).channels == 3


def palette_mask(mask):
    image = Image.fromarray(mask)
    image.putpalette([0, 0, 0, 200, 30, 30] + [0] * 750)
    return image


MASKS = {
    "grey8.png": (lambda m: Image.fromarray(m * 255), [0, 255]),
    "grey16.png": (lambda m: Image.fromarray(m.astype(np.uint16) * 1000), [0, 1000]),
    "one_bit.png": (lambda m: Image.fromarray(m > 0), [0, 1]),
    "palette.png": (palette_mask, [0, 1]),
    "palette.gif": (palette_mask, [0, 1]),
    "grey.tif": (lambda m: Image.fromarray(m * 7), [0, 7]),
    "rgb.png": (lambda m: Image.fromarray(m[:, :, None] * np.uint8([255, 0, 128])), [(0, 0, 0), (255, 0, 128)]),
    "rgba.png": (lambda m: Image.fromarray(np.dstack([m * 5] * 3 + [m * 0 + 255])), [(0, 0, 0), (5, 5, 5)]),
    "numbers.npy": (lambda m: m.astype(np.int32) * 3, [0, 3]),
    "truth.npy": (lambda m: m > 0, [0, 1]),
}


@pytest.mark.parametrize("name", MASKS)
def test_every_mask_format(folders, save, photo, two_classes, name):
    make, values = MASKS[name]
    mask = make(two_classes())
    save(folders[0] / f"{name.rpartition('.')[0]}.png", photo())
    np.save(folders[1] / name, mask) if name.endswith("npy") else mask.save(folders[1] / name)
    scan = scan_folders(folders)
    assert scan.problems == []
    assert scan.counts == dict.fromkeys(values, 96)


def test_exif_orientation_counts_for_the_size(folders, save, photo, two_classes):
    exif = Image.Exif()
    exif[0x0112] = 6
    save(folders[0] / "a.jpg", photo(12, 16), exif=exif)
    save(folders[1] / "a.png", two_classes(1, 16, 12))
    scan = scan_folders(folders)
    assert scan.problems == []
    assert scan.sizes == {(16, 12): 1}


def test_counts_equal_those_of_numpy():
    mask = np.random.default_rng(0).integers(0, 9, (50, 70)).repeat(3, axis=1)
    expected = np.unique(mask, return_counts=True)
    for got, wanted in zip(facts._count(mask), expected, strict=True):
        np.testing.assert_array_equal(got, wanted)


def test_progress_sees_every_pair(data_set):
    seen = []

    def progress(items, label, length):
        seen.append((label, length))
        for item in items:
            seen.append(item.pair.name)
            yield item

    scan_folders(data_set(3), progress=progress)
    assert seen == [("Scanning", 3), "a0", "a1", "a2"]


def test_ignored_value_is_no_class(folders, save, photo):
    save(folders[0] / "a.png", photo())
    save(folders[1] / "a.png", np.repeat(np.uint8([[0, 1, 255, 255]]), 4, axis=1).repeat(12, axis=0))
    scan = scan_folders(folders, ignore=255)
    assert scan.problems == []
    assert scan.classes == [0, 1]
    assert scan.counts[255] == 96


# What is wrong with bad ones


def test_truncated_jpeg(data_set, save):
    folders = data_set(2)
    (folders[0] / "a0.png").unlink()
    path = save(folders[0] / "a0.jpg", np.random.default_rng(0).integers(0, 255, (120, 160, 3)).astype(np.uint8))
    path.write_bytes(path.read_bytes()[:-200])
    save(folders[1] / "a0.png", np.eye(120, 160, dtype=np.uint8))
    (problem,) = scan_folders(folders).problems
    assert "a0.jpg" in problem
    assert "truncated" in problem
    assert "a0.png" in problem


def test_progressive_truncated_jpeg(data_set, save):
    folders = data_set(2)
    (folders[0] / "a0.png").unlink()
    noise = np.random.default_rng(0).integers(0, 255, (12, 16, 3)).astype(np.uint8)
    path = save(folders[0] / "a0.jpg", noise, progressive=True)
    path.write_bytes(path.read_bytes()[:-40])
    (problem,) = scan_folders(folders).problems
    assert "a0.jpg" in problem


def test_truncated_png_and_text_as_image_and_mask(data_set):
    folders = data_set(4)
    for folder, name in ((0, "a0.png"), (1, "a1.png")):
        path = folders[folder] / name
        path.write_bytes(path.read_bytes()[:-30])
    for folder, name in ((0, "a2.png"), (1, "a3.png")):
        (folders[folder] / name).write_text("no picture")
    problems = scan_folders(folders).problems
    assert len(problems) == 4
    for problem, name in zip(problems, ("images/a0", "masks/a1", "images/a2", "masks/a3"), strict=True):
        assert f"{name}.png" in problem
        assert "remove it" in problem


def test_image_without_a_defined_range(data_set):
    folders = data_set(2)
    (folders[0] / "a0.png").unlink()
    np.save(folders[0] / "a0.npy", np.ones((12, 16), np.int32))
    (problem,) = scan_folders(folders).problems
    assert "a0.npy: type int32 has no defined range: save it as" in problem


def test_sizes_that_differ(data_set, save, two_classes):
    folders = data_set(3)
    save(folders[1] / "a1.png", two_classes(1, 6, 8))
    (problem,) = scan_folders(folders).problems
    assert "a1.png: is 6x8 (height x width), but its image a1.png is 12x16" in problem


def test_jpeg_masks(data_set, save, two_classes):
    folders = data_set(2)
    (folders[1] / "a1.png").unlink()
    save(folders[1] / "a1.jpg", two_classes(255), quality=30)
    (problem,) = scan_folders(folders).problems
    assert "a1.jpg (" in problem
    assert "a0.png" not in problem
    assert "lossy" in problem
    assert "PNG" in problem


def test_anti_aliased_masks_name_the_worst_first(data_set, save):
    folders = data_set(9)
    for i in (3, 5):
        save(folders[1] / f"a{i}.png", np.arange(192, dtype=np.uint8).reshape(12, 16) // (6 - i))
    (problem,) = scan_folders(folders).problems
    assert "192 different values in masks, more than 64 classes" in problem
    assert "(values in each: a5.png (192), a3.png (64)," in problem
    assert "anti-aliasing" in problem


def test_masks_with_one_number_an_object(data_set, save):
    folders = data_set(2)
    save(folders[1] / "a0.png", np.arange(192, dtype=np.uint16).reshape(12, 16) * 9)
    assert "not one an object" in scan_folders(folders).problems[0]


def test_more_classes_where_they_are_allowed(data_set, save):
    folders = data_set(2)
    save(folders[1] / "a0.png", np.arange(192, dtype=np.uint8).reshape(12, 16))
    assert scan_folders(folders, max_classes=192).problems == []


def test_the_ignored_value_does_not_count_as_a_class_too_many(data_set, save):
    folders = data_set(2)
    save(folders[1] / "a0.png", (np.arange(192, dtype=np.uint8) % 65).reshape(12, 16))
    assert "65 different values" in scan_folders(folders).problems[0]
    assert scan_folders(folders, ignore=64).problems == []


def test_noise_with_more_values_than_are_kept(folders, save):
    noise = np.random.default_rng(0).integers(0, 256, (100, 100, 3)).astype(np.uint8)
    save(folders[0] / "a.png", noise)
    save(folders[1] / "a.png", noise)
    for _ in range(2):  # the second time from the cache
        (problem,) = scan_folders(folders).problems
        assert "a.png (99" in problem  # of 10,000 random colours nearly all differ


def test_grey_and_colour_masks_mixed(data_set, save, two_classes):
    folders = data_set(5)
    save(folders[1] / "a2.png", np.dstack([two_classes()] * 3))
    (problem,) = scan_folders(folders).problems
    assert "1 masks hold colour values and the others grey ones (colour: a2.png)" in problem
    assert "one mode" in problem


@pytest.mark.parametrize(("high", "rare"), [(255, "0/255"), (1, "0/1")])
def test_one_object_as_1_and_as_255(data_set, save, two_classes, high, rare):
    folders = data_set(5)
    for i in range(5):
        save(folders[1] / f"a{i}.png", two_classes(high if i == 2 else 256 - high))
    save(folders[1] / "a4.png", two_classes(0))
    (problem,) = scan_folders(folders).problems
    assert f"1 masks hold {rare} values and the others" in problem
    assert f"({rare}: a2.png): save all masks with one of the two" in problem
    assert scan_folders(folders, ignore=high).problems == []


@pytest.mark.parametrize("values", [[(1,), (2,)], [(1,), (255,), (1, 255)], [(1,), (255,), (2,)]])
def test_classes_that_are_in_different_masks(data_set, save, two_classes, values):
    folders = data_set(len(values))
    for i, value in enumerate(values):
        mask = two_classes(value[0])
        mask[:4, 12:] = value[-1]
        save(folders[1] / f"a{i}.png", mask)
    assert scan_folders(folders).problems == []


def test_nothing_to_learn(folders, save, photo):
    for name in "ab":
        save(folders[0] / f"{name}.png", photo())
        save(folders[1] / f"{name}.png", np.full((12, 16), 7, np.uint8))
    (problem,) = scan_folders(folders).problems
    assert "single value (7)" in problem
    assert "nothing to learn" in problem
    assert "single value (none)" in scan_folders(folders, ignore=7).problems[0]


@pytest.mark.parametrize("value", [-1, 70000])
def test_values_that_no_mask_file_can_hold(data_set, value):
    folders = data_set(2)
    (folders[1] / "a0.png").unlink()
    np.save(folders[1] / "a0.npy", np.full((12, 16), value, np.int32))
    (problem,) = scan_folders(folders).problems
    assert f"a0.npy: holds {value}" in problem
    assert "0 to 65535" in problem


def test_float_mask(data_set):
    folders = data_set(2)
    (folders[1] / "a0.png").unlink()
    np.save(folders[1] / "a0.npy", np.full((12, 16), 0.5))
    assert "a mask must hold one whole number" in scan_folders(folders).problems[0]


def test_unseen_values_are_told_by_mask(data_set, save, two_classes):
    folders = data_set(3)
    save(folders[1] / "a1.png", two_classes(9))
    scan = scan_folders(folders)
    (problem,) = check_values(scan, [0, 1])
    assert problem.startswith("a1: holds 9, which is no class (the classes are 0, 1)")
    assert check_values(scan.values_by_mask, [0, 1], ignore=9) == []
    assert check_values({"x": [(1, 2, 3)]}, [(1, 2, 3)]) == []


def test_prepare_tells_all_problems_together(data_set, save, two_classes, photo):
    folders = data_set(4)
    save(folders[0] / "lonely.png", photo())
    (folders[0] / "a0.png").write_text("no picture")
    save(folders[1] / "a1.png", two_classes(1, 6, 8))
    with pytest.raises(DatasetError, match="has 3 problems") as caught:
        prepare(*folders)
    text = "\n".join(caught.value.problems)
    assert all(part in text for part in ("lonely.png", "a0.png: not an image", "a1.png: is 6x8"))


def test_prepare_returns_a_clean_data_set(data_set):
    pairs, scan = prepare(*data_set(2))
    assert [pair.name for pair in pairs] == list(scan.values_by_mask) == ["a0", "a1"]


# The cache


def test_a_second_scan_decodes_nothing(data_set, decodes):
    folders = data_set(3)
    first = scan_folders(folders)
    assert len(decodes) == 6
    decodes.clear()
    assert scan_folders(folders) == first
    assert decodes == []


def test_without_the_cache_everything_is_decoded(data_set, decodes, own_cache):
    folders = data_set(1)
    for _ in range(2):
        scan_folders(folders, cache=False)
    assert len(decodes) == 4
    assert not own_cache.exists()


def test_a_changed_file_is_decoded_again(data_set, decodes, save, two_classes):
    folders = data_set(3)
    scan_folders(folders)
    decodes.clear()
    path = save(folders[1] / "a1.png", two_classes(2))
    os.utime(path, ns=(1, 1))  # a changed time is enough, whatever the size
    assert 2 in scan_folders(folders).counts
    assert decodes == ["read_mask a1.png"]


def test_files_that_changed_places_are_decoded_again(data_set, save, two_classes):
    folders = data_set(2)
    first, second = (save(folders[1] / f"a{i}.bmp", two_classes(1 + i)) for i in range(2))
    for i, path in enumerate((first, second)):
        (folders[1] / f"a{i}.png").unlink()
        os.utime(path, ns=(1, 1))
    before = scan_folders(folders).values_by_mask
    first.rename(folders[1] / "b.bmp")
    second.rename(first)
    (folders[1] / "b.bmp").rename(second)
    assert scan_folders(folders).values_by_mask == {"a0": before["a1"], "a1": before["a0"]}


def test_a_file_overwritten_in_its_own_time_is_decoded_again(data_set, save, two_classes):
    folders = data_set(1)
    (folders[1] / "a0.png").unlink()
    for value in (1, 2):
        os.utime(save(folders[1] / "a0.bmp", two_classes(value)), ns=(1, 1))
        assert scan_folders(folders).values_by_mask == {"a0": [0, value]}


def test_an_unreadable_file_is_not_remembered(data_set):
    folders = data_set(2)
    path = folders[0] / "a0.png"
    good = path.read_bytes()
    path.write_bytes(b"x" * len(good))
    os.utime(path, ns=(1, 1))
    assert scan_folders(folders).problems
    path.write_bytes(good)
    os.utime(path, ns=(1, 1))
    assert scan_folders(folders).problems == []


@pytest.mark.parametrize(
    "damage",
    [
        lambda text: "",
        lambda text: text[: len(text) // 2],
        lambda text: "[" * 100_000,
        lambda text: "[1, 2]",
        lambda text: text.replace("12", '"12"'),
        lambda text: text.replace("12", "-12"),
        lambda text: text.replace("[12,16,", "[12,"),
        lambda text: text.replace("[96,96]", "[96,97]"),
        lambda text: text.replace('"pillow":"', '"pillow":"0.'),
        lambda text: text.replace('"version":', '"version":999'),
        lambda text: json.dumps({**json.loads(text), "facts": 3}),
        lambda text: json.dumps({**json.loads(text), "facts": {key: [1] for key in json.loads(text)["facts"]}}),
    ],
)
def test_a_damaged_cache_is_made_anew(data_set, own_cache, decodes, damage):
    folders = data_set(2)
    first = scan_folders(folders)
    files = list(own_cache.rglob("*.json"))
    assert files
    for path in files:
        path.write_text(damage(path.read_text()))
    decodes.clear()
    assert scan_folders(folders) == first
    assert decodes
    decodes.clear()
    assert scan_folders(folders) == first
    assert decodes == []


def test_an_unwritable_cache_is_done_without(data_set, tmp_path, monkeypatch):
    (tmp_path / "a file").write_text("in the way")
    monkeypatch.setenv("UNET_EDGE_CACHE", str(tmp_path / "a file" / "cache"))
    assert scan_folders(data_set(2)).problems == []


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({"UNET_EDGE_CACHE": "/x/mine"}, "/x/mine"),
        ({"XDG_CACHE_HOME": "/x/cache"}, "/x/cache/unet-edge"),
        ({"HOME": "/x/home"}, {"linux": "/x/home/.cache/unet-edge", "darwin": "/x/home/Library/Caches/unet-edge"}),
    ],
)
@pytest.mark.parametrize("platform", ["linux", "darwin"])
def test_place_of_the_cache(monkeypatch, variables, expected, platform):
    from unet_edge_runtime.files import cache_folder

    monkeypatch.setattr("sys.platform", platform)
    for name in ("UNET_EDGE_CACHE", "XDG_CACHE_HOME"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    assert str(cache_folder()) == (expected[platform] if isinstance(expected, dict) else expected)


# Real data sets

REAL = {
    "carvana": (3, [0, 1], None),
    "dsb2018": (3, [0, 255], None),
    "camvid/train": (3, list(range(11)), 11),
    "isbi2012": (1, [0, 255], None),
    "mni152_nilearn": (1, [0, 1, 2, 3], None),
    "nuclei_stardist": (1, [0, 255], None),
}


@pytest.mark.parametrize("name", REAL)
def test_real_data_sets_are_clean(real_data, folders, name):
    channels, classes, ignore = REAL[name]
    source = real_data(name)
    pairs, _ = pair_files(source / "images", source / "masks")
    for pair in pairs[:: max(1, len(pairs) // 16)]:
        (folders[0] / pair.image.name).symlink_to(pair.image)
        (folders[1] / pair.mask.name).symlink_to(pair.mask)
    scan = scan_folders(folders, ignore=ignore)
    assert scan.problems == []
    assert scan.channels == channels
    assert scan.classes == classes
    name = next(iter(scan.values_by_mask))
    mask = next(path for path in folders[1].iterdir() if path.stem.startswith(name))
    assert scan.values_by_mask[name] == np.unique(read_mask(mask)).tolist()


def test_the_bits_of_the_images_are_the_largest(tmp_path):
    (tmp_path / "i").mkdir()
    (tmp_path / "m").mkdir()
    mask = np.zeros((8, 8), np.uint8)
    mask[2:5] = 1
    for name, image in (("a", np.zeros((8, 8), np.uint8)), ("b", np.zeros((8, 8), np.uint16))):
        Image.fromarray(image).save(tmp_path / "i" / f"{name}.png")
        Image.fromarray(mask).save(tmp_path / "m" / f"{name}.png")
    pairs, _ = pair_files(tmp_path / "i", tmp_path / "m")
    assert scan_pairs(pairs).bits == 16
    assert scan_pairs(pairs).bits == 16  # from the cache
    assert scan_pairs(pairs[:1]).bits == 8
