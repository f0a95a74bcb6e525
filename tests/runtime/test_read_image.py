"""Reading images: what each kind of file becomes, and how unusable files are refused."""

from __future__ import annotations

import pickle
import struct
import zipfile
import zlib

import numpy as np
import pytest
from PIL import Image

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import MAX_PIXELS, as_image, image_files, is_image_file, read_image, to_uint8
from unet_edge_runtime.mask import read_mask

GREY8 = (np.arange(12 * 17, dtype=np.uint8) + 20).reshape(12, 17)
GREY16 = (np.arange(12 * 17, dtype=np.uint16) * 321).reshape(12, 17)
RGB = np.stack([GREY8, GREY8[::-1], GREY8[:, ::-1]], axis=-1)
RGBA = np.concatenate([RGB, np.roll(GREY8, 5)[:, :, None]], axis=-1)


def save(folder, array, name, mode=None, **options):
    picture = array if isinstance(array, Image.Image) else Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(folder / name, **options)
    return folder / name


@pytest.mark.parametrize(
    ("array", "name"),
    [
        (GREY8, "grey.png"),
        (GREY8, "grey.tif"),
        (GREY8, "grey.bmp"),
        (GREY8, "grey.pgm"),
        (GREY16, "deep.png"),
        (GREY16, "deep.tif"),
        (GREY16, "deep.pgm"),
        (RGB, "colour.png"),
        (RGB, "colour.ppm"),
        (RGBA, "alpha.png"),
        (RGBA, "alpha.tif"),
        ((GREY8 / 256).astype(np.float32), "float.tif"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_lossless_files_come_back_exactly(tmp_path, array, name):
    read = read_image(save(tmp_path, array, name))
    assert read.dtype == array.dtype
    np.testing.assert_array_equal(read, array)


def test_one_bit_is_black_and_white(tmp_path):
    path = save(tmp_path, GREY8 > 100, "bits.png")
    assert Image.open(path).mode == "1"
    np.testing.assert_array_equal(read_image(path), np.where(GREY8 > 100, 255, 0))


def test_grey_with_alpha_is_grey(tmp_path):
    picture = Image.merge("LA", [Image.fromarray(GREY8), Image.fromarray(RGB[:, :, 1].copy())])
    np.testing.assert_array_equal(read_image(save(tmp_path, picture, "la.png")), GREY8)


def test_a_palette_becomes_colours(tmp_path):
    path = save(tmp_path, RGB, "palette.png", mode="P")
    np.testing.assert_array_equal(read_image(path), np.asarray(Image.open(path).convert("RGB")))


@pytest.mark.parametrize("transparency", [3, bytes(range(256))], ids=["index", "table"])
def test_a_transparent_palette_becomes_rgba(tmp_path, transparency):
    path = save(tmp_path, Image.fromarray(RGB).convert("P"), "clear.png", transparency=transparency)
    read = read_image(path)
    assert read.shape == (12, 17, 4)
    np.testing.assert_array_equal(read, np.asarray(Image.open(path).convert("RGBA")))


def test_cmyk_becomes_rgb(tmp_path):
    read = read_image(save(tmp_path, RGB, "print.tif", mode="CMYK"))
    np.testing.assert_array_equal(read, RGB)


def test_big_endian_tiffs_keep_their_16_bits(tmp_path):
    picture = Image.frombytes("I;16B", (17, 12), GREY16.astype(">u2").tobytes())
    path = save(tmp_path, picture, "motorola.tif")
    assert Image.open(path).mode == "I;16B"
    np.testing.assert_array_equal(read_image(path), GREY16)


def chunk(kind, data):
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png(width, height, bits, kind, rows=b""):
    header = struct.pack(">IIBBBBB", width, height, bits, kind, 0, 0, 0)
    chunks = chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(rows)) + chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + chunks


def deep_png(kind, channels):
    return png(2, 1, 16, kind, b"\0" + np.arange(2 * channels, dtype=">u2").tobytes())


def deep_tiff(tmp_path):
    bits = struct.pack("<3H", 8, 8, 8)
    whole = save(tmp_path, RGB, "shallow.tif").read_bytes()
    assert whole.count(bits) == 1
    return whole.replace(bits, struct.pack("<3H", 16, 16, 16))


DEEP_COLOURS = {
    "rgb.png": deep_png(2, 3),
    "rgba.png": deep_png(6, 4),
    "la.png": deep_png(4, 2),
    "rgb.ppm": b"P6 2 1 65535\n" + bytes(12),
    "rgb12.ppm": b"P6 2 1 4095\n" + bytes(12),
    "plain.ppm": b"P3 2 1 65535\n" + b"0 300 70 " * 2,
    "rgb.sgi": struct.pack(">HBBHHHH", 474, 0, 2, 3, 2, 1, 3).ljust(512, b"\0") + bytes(12),
    "rgb.tif": None,
}


@pytest.mark.parametrize("read", [read_image, read_mask])
@pytest.mark.parametrize("name", DEEP_COLOURS)
def test_colours_of_16_bits_are_refused_instead_of_cut(tmp_path, name, read):
    path = tmp_path / name
    path.write_bytes(DEEP_COLOURS[name] or deep_tiff(tmp_path))
    assert Image.open(path).mode in ("RGB", "RGBA")
    with pytest.raises(InputError, match=rf"{name}: has channels of more than 8 bits, .* as uint16 \.npy"):
        read(path)


def test_32_bit_integers_have_no_range(tmp_path):
    path = save(tmp_path, Image.fromarray(GREY16.astype(np.int32)), "int.tif")
    with pytest.raises(InputError, match=r"int\.tif: type int32 has no defined range"):
        read_image(path)


UPRIGHT = {
    1: lambda a: a,
    2: lambda a: a[:, ::-1],
    3: lambda a: np.rot90(a, 2),
    4: lambda a: a[::-1],
    5: lambda a: np.swapaxes(a, 0, 1),
    6: lambda a: np.rot90(a, 3),
    7: lambda a: np.swapaxes(np.rot90(a, 2), 0, 1),
    8: lambda a: np.rot90(a, 1),
}


@pytest.mark.parametrize("orientation", UPRIGHT)
@pytest.mark.parametrize(
    ("array", "name"),
    [(RGB, "c.png"), (RGB, "c.tif"), (GREY8, "g.png"), (GREY8, "g.tif"), (GREY16, "d.png"), (GREY16, "d.tif")],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_orientation_is_honoured(tmp_path, array, name, orientation):
    exif = Image.Exif()
    exif[0x112] = orientation
    read = read_image(save(tmp_path, array, name, exif=exif))
    np.testing.assert_array_equal(read, UPRIGHT[orientation](array))


def test_an_animation_gives_its_first_frame(tmp_path):
    frames = [Image.fromarray(np.full((8, 9), level, np.uint8)) for level in (40, 90)]
    frames[0].save(tmp_path / "moving.gif", save_all=True, append_images=frames[1:])
    assert np.unique(read_image(tmp_path / "moving.gif")).tolist() == [40]


@pytest.mark.parametrize("dtype", ["?", "u1", "u2", ">u2", "f2", "f4", ">f4", "f8"])
@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 1), (4, 5, 3), (4, 5, 4)])
def test_npy_of_types_with_a_range(tmp_path, dtype, shape):
    array = (np.arange(np.prod(shape)).reshape(shape) % 2).astype(dtype)
    np.save(tmp_path / "a.npy", array)
    read = read_image(tmp_path / "a.npy")
    kept = {"b": np.uint8, "f": np.float32}.get(array.dtype.kind, array.dtype.newbyteorder("="))
    assert read.dtype == kept
    assert read.dtype.isnative
    np.testing.assert_array_equal(read, np.squeeze(array.astype(kept) * (255 if dtype == "?" else 1)))


@pytest.mark.parametrize("dtype", ["i1", "i2", "i4", "i8", "u4", "u8", "c8", "U3", "M8[s]", "V4"])
def test_npy_of_types_without_a_range(tmp_path, dtype):
    np.save(tmp_path / "a.npy", np.zeros((4, 5), dtype))
    with pytest.raises(InputError, match=r"a\.npy: type .* has no defined range: save it as uint8, uint16, or float"):
        read_image(tmp_path / "a.npy")


@pytest.mark.parametrize("shape", [(), (7,), (0, 5), (5, 0), (4, 5, 5), (2, 3, 4, 5)])
def test_npy_that_is_no_image(tmp_path, shape):
    np.save(tmp_path / "a.npy", np.zeros(shape, np.uint8))
    with pytest.raises(InputError, match=r"a\.npy: shape .* expected \(H, W\)"):
        read_image(tmp_path / "a.npy")


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("value", [np.nan, np.inf, 1e300])
def test_npy_with_values_that_are_no_number(tmp_path, value):
    np.save(tmp_path / "a.npy", np.full((4, 5), value))
    with pytest.raises(InputError, match=r"a\.npy: holds NaN or infinite values"):
        read_image(tmp_path / "a.npy")


def npy(header, body=b""):
    text = header.encode("latin1")
    return b"\x93NUMPY\x01\x00" + struct.pack("<H", len(text)) + text + body


HOSTILE_NPY = {
    "empty": b"",
    "pickle": pickle.dumps([1, 2]),
    "huge": npy("{'descr':'|u1','fortran_order':False,'shape':(99999999,99999999)}\n", b"12"),
    "overflow": npy(f"{{'descr':'|u1','fortran_order':False,'shape':({2**62},{2**62})}}\n", b"12"),
    "negative": npy("{'descr':'|u1','fortran_order':False,'shape':(-1,5)}\n"),
    "text shape": npy("{'descr':'|u1','fortran_order':False,'shape':('a',5)}\n"),
    "open brace": npy("{"),
    "deep": npy("(" * 3000),
    "objects": npy("{'descr':'|O','fortran_order':False,'shape':(2,5)}\n", b"1234567890" * 8),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("content", HOSTILE_NPY.values(), ids=HOSTILE_NPY)
def test_hostile_npy(tmp_path, content):
    (tmp_path / "a.npy").write_bytes(content)
    with pytest.raises(InputError, match=r"a\.npy: not a readable \.npy array"):
        read_image(tmp_path / "a.npy")


def test_an_archive_is_no_npy(tmp_path):
    with zipfile.ZipFile(tmp_path / "a.npy", "w") as archive:
        archive.writestr("x.npy", "x")
    with pytest.raises(InputError, match="not a readable"):
        read_image(tmp_path / "a.npy")


def test_pickled_objects_are_not_run(tmp_path):
    ran = tmp_path / "ran"

    class Bomb:
        def __reduce__(self):
            return ran.touch, ()

    np.save(tmp_path / "a.npy", np.array([Bomb()], dtype=object), allow_pickle=True)
    with pytest.raises(InputError):
        read_image(tmp_path / "a.npy")
    assert not ran.exists()


@pytest.mark.filterwarnings("ignore::UserWarning:PIL")
@pytest.mark.parametrize("name", ["a.png", "a.jpg", "a.tif", "a.gif", "a.bmp", "a.webp"])
def test_truncated_and_altered_files_are_refused_or_read(tmp_path, name):
    """Whatever a damaged file makes Pillow stumble over, it is an InputError that names the file."""
    whole = save(tmp_path, RGB, name).read_bytes()
    rng = np.random.default_rng(0)
    path = tmp_path / f"bad_{name}"
    messages = []
    for step in range(150):
        data = bytearray(whole[: len(whole) * step // 75] if step < 75 else whole)
        for place in rng.integers(0, max(1, len(data)), 0 if step < 75 else 4):
            data[place] = rng.integers(256)
        path.write_bytes(data)
        try:
            read_image(path)
        except InputError as error:
            messages.append(str(error))
    assert len(messages) > 20
    assert [text for text in messages if not text.startswith(str(path)) or "\n" in text] == []


def test_a_header_that_promises_too_much_is_refused_before_anything_is_allocated(tmp_path):
    for side in (14_000, 16_385, 2_000_000_000):
        (tmp_path / "bomb.png").write_bytes(png(side, side, 8, 2))
        with pytest.raises(InputError, match=r"bomb\.png: more than 179 million pixels, .*: cut it into pieces"):
            read_image(tmp_path / "bomb.png")
    assert round(2 * Image.MAX_IMAGE_PIXELS / 1e6) == 179
    assert MAX_PIXELS == 1 << 28


def test_our_own_bound_holds_where_that_of_pillow_is_lifted(tmp_path, monkeypatch):
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    (tmp_path / "bomb.png").write_bytes(png(16_385, 16_385, 8, 2))
    with pytest.raises(InputError, match=r"bomb\.png: 16385x16385 is too large: cut it into pieces"):
        read_image(tmp_path / "bomb.png")


def test_a_document_of_pages_is_refused(tmp_path):
    pages = [Image.fromarray(GREY8), Image.fromarray(GREY8)]
    pages[0].save(tmp_path / "doc.tif", save_all=True, append_images=pages[1:])
    with pytest.raises(InputError, match=r"doc\.tif: has 2 pages: save each page as a file"):
        read_image(tmp_path / "doc.tif")


def test_what_is_not_there_or_no_image(tmp_path):
    for name in ("missing.png", "missing.npy"):
        with pytest.raises(InputError, match="no such file"):
            read_image(tmp_path / name)
    (tmp_path / "folder.png").mkdir()
    with pytest.raises(InputError, match="is a folder"):
        read_image(tmp_path / "folder.png")
    (tmp_path / "text.png").write_text("hello")
    with pytest.raises(InputError, match="not an image that Pillow can read"):
        read_image(tmp_path / "text.png")


@pytest.mark.filterwarnings("error::ResourceWarning")
def test_files_are_closed(tmp_path):
    frames = [Image.fromarray(GREY8), Image.fromarray(GREY8[::-1].copy())]
    frames[0].save(tmp_path / "a.gif", save_all=True, append_images=frames[1:])
    for _ in range(3):
        read_image(tmp_path / "a.gif")


def test_which_names_are_images(tmp_path):
    from pathlib import Path

    yes = ["a.png", "a.JPG", "a.tif", "a.npy", "a.gif", "a.webp", "b c[1].ü.jpeg"]
    no = [".hidden.png", "a.txt", "a.pdf", "a.h5", "png", "a.xml"]
    assert [name for name in yes if not is_image_file(Path(name))] == []
    assert [name for name in no if is_image_file(Path(name))] == []
    for name in yes + no:
        (tmp_path / name).touch()
    assert [path.name for path in image_files(tmp_path)] == sorted(yes)
    (tmp_path / "empty").mkdir()
    with pytest.raises(InputError, match="holds no image file"):
        image_files(tmp_path / "empty")
    with pytest.raises(InputError, match="is not a folder"):
        image_files(tmp_path / "a.png")


def test_arrays_follow_the_rules_of_files():
    assert as_image(GREY8 > 100).max() == 255
    with pytest.raises(InputError, match="the image: type int64"):
        as_image(GREY8.astype(np.int64))


@pytest.mark.parametrize(
    ("array", "first"),
    [(GREY8, 20), (np.full((2, 2), 65535, np.uint16), 255), (np.full((2, 2), 1.5, np.float32), 255), (RGBA, 20)],
)
def test_any_image_can_be_looked_at(array, first):
    picture = to_uint8(array)
    assert picture.shape == (*array.shape[:2], 3)
    assert picture.dtype == np.uint8
    assert picture[0, 0, 0] == first
