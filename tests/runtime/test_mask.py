"""Masks: file to values to labels and back, unchanged."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.mask import labels_from_mask, mask_image, overlay, pack, read_mask, unpack
from unet_edge_runtime.segmenter import save_picture
from unet_edge_runtime.spec import IGNORE_LABEL

VALUE_SETS = {
    "0 255": ((0, 255), None),
    "0 1": ((0, 1), None),
    "0 1 void": ((0, 1), 255),
    "1 0": ((1, 0), None),
    "0..10 void 11": (tuple(range(11)), 11),
    "0..10 void deep": (tuple(range(11)), 60000),
    "greys": ((0, 85, 170, 255), None),
    "deep": ((0, 300, 65535), 7),
    "colours": (((0, 0, 0), (255, 0, 0), (0, 0, 5)), (255, 255, 255)),
    "254 classes": (tuple(range(254)), 254),
}


def some_labels(spec):
    labels = np.arange(40 * 30, dtype=np.int64).reshape(40, 30) % len(spec.classes)
    labels = labels.astype(np.uint8)
    if spec.ignore_value is not None:
        labels[3:6] = IGNORE_LABEL
    return labels


@pytest.mark.parametrize("suffix", [".png", ".tif", ".bmp"])
@pytest.mark.parametrize(("values", "void"), VALUE_SETS.values(), ids=VALUE_SETS)
def test_labels_survive_a_file(tmp_path, make_spec, values, void, suffix):
    spec = make_spec(values, ignore_value=void)
    labels = some_labels(spec)
    path = tmp_path / f"mask{suffix}"
    if suffix == ".bmp" and mask_image(labels, spec).mode == "I;16":
        with pytest.raises(InputError, match=r"mask\.bmp: cannot be written"):
            save_picture(mask_image(labels, spec), path)
        assert list(tmp_path.iterdir()) == []
        return
    save_picture(mask_image(labels, spec), path)
    np.testing.assert_array_equal(labels_from_mask(read_mask(path), spec), labels)


@pytest.mark.parametrize(
    ("values", "mode"),
    [
        ((0, 255), "L"),
        ((0, 1), "1"),
        ((1, 0), "P"),
        (tuple(range(11)), "P"),
        ((0, 300), "I;16"),
        (((0, 0, 0), (9, 9, 9)), "RGB"),
    ],
)
def test_masks_can_be_seen(make_spec, values, mode):
    spec = make_spec(values)
    picture = mask_image(some_labels(spec), spec)
    assert picture.mode == mode
    if mode == "P":
        shown = np.asarray(picture.convert("RGB"))
        assert {tuple(c) for c in shown.reshape(-1, 3).tolist()} == {info.color for info in spec.classes}


@pytest.mark.parametrize("suffix", [".jpg", ".gif", ".webp", ".jp2", ".pdf", ".ppm", ".xyz", ""])
def test_formats_that_would_alter_a_mask_are_refused(tmp_path, make_spec, suffix):
    spec = make_spec(tuple(range(11)))
    with pytest.raises(InputError, match=r"choose \.png"):
        save_picture(mask_image(some_labels(spec), spec), tmp_path / f"mask{suffix}")
    assert list(tmp_path.iterdir()) == []


def test_every_kind_of_mask_file(tmp_path):
    values = np.arange(35, dtype=np.uint8).reshape(5, 7) % 4
    picture = Image.fromarray(values)
    palette = picture.copy()
    palette.putpalette([7, 8, 9] * 256)
    files = {
        "grey.png": picture,
        "palette.png": palette,
        "palette.gif": palette,
        "alpha.png": Image.merge("LA", [picture, Image.new("L", (7, 5), 3)]),
        "deep.png": Image.fromarray(values.astype(np.uint16)),
        "int.tif": Image.fromarray(values.astype(np.int32)),
        "big.tif": Image.frombytes("I;16B", (7, 5), values.astype(">u2").tobytes()),
    }
    for name, file in files.items():
        file.save(tmp_path / name)
        np.testing.assert_array_equal(read_mask(tmp_path / name), values, err_msg=name)
    for dtype in ("u1", "u2", ">u2", "i4", "i8", "u8"):
        np.save(tmp_path / "a.npy", values.astype(dtype))
        np.testing.assert_array_equal(read_mask(tmp_path / "a.npy"), values, err_msg=dtype)


def test_one_bit_masks_are_0_and_1_in_every_format(tmp_path):
    bits = np.eye(6, dtype=bool)
    Image.fromarray(bits).save(tmp_path / "a.png")
    np.save(tmp_path / "a.npy", bits)
    for name in ("a.png", "a.npy"):
        np.testing.assert_array_equal(read_mask(tmp_path / name), bits.astype(int))


def test_colours_are_kept_apart_from_greys(tmp_path):
    colours = np.zeros((4, 4, 3), np.uint8)
    colours[2:] = (0, 0, 5)
    for name in ("a.png", "b.npy"):
        path = tmp_path / name
        np.save(path, colours) if name.endswith("npy") else Image.fromarray(colours).save(path)
        assert [unpack(int(n)) for n in np.unique(read_mask(path))] == [(0, 0, 0), (0, 0, 5)]
    assert pack((0, 0, 5)) != pack(5)
    assert [unpack(pack(value)) for value in (0, 5, 65535, (255, 255, 255))] == [0, 5, 65535, (255, 255, 255)]


def test_masks_take_no_more_memory_than_their_values_need(tmp_path):
    for name, array, kept in (
        ("a.png", np.zeros((8, 9), np.uint8), np.uint8),
        ("b.png", np.zeros((8, 9), bool), np.uint8),
        ("c.png", np.zeros((8, 9), np.uint16), np.uint16),
        ("d.png", np.zeros((400, 500, 3), np.uint8), np.uint32),
    ):
        Image.fromarray(array).save(tmp_path / name)
        assert read_mask(tmp_path / name).dtype == kept
    tracemalloc.start()
    read_mask(tmp_path / "d.png")
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 9 * 400 * 500  # bytes: the colours, the numbers, little else


def test_orientation_of_masks(tmp_path):
    exif = Image.Exif()
    exif[0x112] = 6
    values = np.arange(6, dtype=np.uint8).reshape(2, 3)
    Image.fromarray(values).save(tmp_path / "a.png", exif=exif)
    np.testing.assert_array_equal(read_mask(tmp_path / "a.png"), np.rot90(values, 3))


@pytest.mark.parametrize(
    ("array", "message"),
    [
        (np.full((2, 2), -1), "holds -1 to -1"),
        (np.full((2, 2), 70000), "holds 70000 to 70000"),
        (np.full((2, 2), 2**63, np.uint64), "mask values are 0 to 65535"),
        (np.zeros((0, 2), np.uint8), "holds nothing"),
        (np.zeros((2, 2)), "a mask must hold one whole number or one 8-bit RGB colour a pixel, not float64"),
        (np.zeros((2, 2, 2), np.uint8), "not uint8 of shape"),
        (np.zeros((2, 2, 3), np.uint16), "not uint16 of shape"),
    ],
)
def test_values_that_are_no_classes(tmp_path, array, message):
    np.save(tmp_path / "a.npy", array)
    with pytest.raises(InputError, match=rf"a\.npy: .*{message}|a\.npy: {message}"):
        read_mask(tmp_path / "a.npy")


def test_an_unseen_value_is_named_with_its_file(make_spec):
    with pytest.raises(InputError, match=r"m\.png: holds 7, 254, which is no class .* 0, 255"):
        labels_from_mask(np.array([[0, 255], [7, 254]]), make_spec(), "m.png")
    colours = make_spec(((0, 0, 0), (9, 9, 9)))
    with pytest.raises(InputError, match=r"holds \(1, 2, 3\)"):
        labels_from_mask(np.array([[pack((1, 2, 3))]]), colours)
    with pytest.raises(InputError, match="holds 0,"):
        labels_from_mask(np.array([[0]]), colours)


def test_every_pixel_has_its_own_label(make_spec):
    values = (7, 0, 300, 1)
    labels = np.random.default_rng(0).integers(0, 4, (50, 70))
    np.testing.assert_array_equal(labels_from_mask(np.array(values, np.uint16)[labels], make_spec(values)), labels)


def test_labels_take_little_more_memory_than_themselves(make_spec):
    mask = np.zeros((500, 600), np.uint8)
    mask[100:300, 200:500] = 255
    tracemalloc.start()
    labels_from_mask(mask, make_spec((0, 255)))
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 3 * mask.size


def test_real_masks_become_labels(real_data, make_spec):
    carvana = next((real_data / "carvana").rglob("*_mask.gif"))
    labels = labels_from_mask(read_mask(carvana), make_spec((0, 1)))
    assert labels.shape == (1280, 1918)
    assert 0.05 < labels.mean() < 0.5
    camvid = next((real_data / "camvid" / "val").rglob("*mask*/*.png"), None) or next(
        path for path in sorted((real_data / "camvid" / "val").rglob("*.png")) if Image.open(path).mode == "L"
    )
    labels = labels_from_mask(read_mask(camvid), make_spec(tuple(range(11)), ignore_value=11))
    assert set(np.unique(labels)) <= {*range(11), IGNORE_LABEL}


def test_the_overlay_tints_all_but_the_background(make_spec):
    spec = make_spec((0, 1, 2))
    image = np.full((4, 6, 3), 100, np.uint8)
    labels = np.zeros((4, 6), np.uint8)
    labels[1], labels[2], labels[3] = 1, 2, IGNORE_LABEL
    tinted = np.asarray(overlay(image, labels, spec, opacity=0.5)).astype(int)
    assert (tinted[0] == 100).all()
    assert (tinted[3] == 100).all()
    for label in (1, 2):
        wanted = (np.array(spec.classes[label].color) + 100) / 2
        np.testing.assert_allclose(tinted[label], np.broadcast_to(wanted, (6, 3)), atol=1)
    everything = np.asarray(overlay(image, labels, spec.replace(background=None), opacity=1.0))
    assert (everything[0] == 0).all()


@pytest.mark.parametrize("dtype", [np.uint8, np.uint16, np.float32])
def test_any_image_can_be_overlaid(make_spec, dtype):
    for shape in ((4, 6), (4, 6, 3), (4, 6, 4)):
        picture = overlay(np.zeros(shape, dtype), np.ones((4, 6), np.uint8), make_spec())
        assert (picture.mode, picture.size) == ("RGB", (6, 4))
