from __future__ import annotations

import gzip
import importlib.util
import struct

import numpy as np
import pytest
from PIL import Image

from unet_edge.data.checks import prepare
from unet_edge.data.sample import SAMPLE_CLASSES, make_brain_sample
from unet_edge.data.split import split_pairs
from unet_edge_runtime.errors import InputError

SHAPE = (48, 52, 20)


def header(shape=SHAPE, datatype=2, bits=8, offset=352.0, magic=b"n+1\0", rank=3, size=348):
    data = bytearray(348)
    struct.pack_into("<i", data, 0, size)
    struct.pack_into("<8h", data, 40, rank, *shape, 1, 1, 1, 1)
    struct.pack_into("<2h", data, 70, datatype, bits)
    struct.pack_into("<f", data, 108, offset)
    data[344:348] = magic
    return bytes(data)


def nifti(volume, **changes):
    return gzip.compress(header(**changes) + b"\0" * 4 + volume.tobytes(order="F"), 1)


@pytest.fixture
def package(tmp_path, monkeypatch):
    """A stand-in for nilearn, which fails when it is imported; returns a function that writes one of its volumes."""
    root = tmp_path / "site"
    data = root / "nilearn" / "datasets" / "data"
    data.mkdir(parents=True)
    (root / "nilearn" / "__init__.py").write_text("raise ImportError('imported')")
    monkeypatch.syspath_prepend(root)

    def write(kind, content):
        (data / f"mni_icbm152_{kind}_tal_nlin_sym_09a_converted.nii.gz").write_bytes(content)

    t1 = np.full(SHAPE, 90, np.uint8)
    t1[:2] = 0
    grey = np.zeros(SHAPE, np.uint8)
    grey[5:25, :, 3:18] = 130
    white = np.zeros(SHAPE, np.uint8)
    white[20:45, :, 3:18] = 140
    white[24, :, 3:18] = 130  # as likely as grey matter, which then wins
    for kind, volume in (("t1", t1), ("gm", grey), ("wm", white)):
        write(kind, nifti(volume))
    return write


def test_sample_from_the_package(package, tmp_path):
    images, masks = make_brain_sample(tmp_path / "sample")
    pairs, scan = prepare(images, masks)
    assert [pair.name for pair in pairs] == [f"axial_{z:03d}" for z in range(3, 18)]
    assert scan.sizes == {(52, 48): 15}  # a quarter turn
    assert scan.channels == 1
    assert scan.classes == [0, 1, 2, 3]
    assert len(SAMPLE_CLASSES) == 4
    mask = np.asarray(Image.open(pairs[0].mask))
    assert mask[0].tolist() == [0] * 2 + [1] * 3 + [2] * 15 + [3] * 4 + [2] + [3] * 20 + [1] * 3
    split = split_pairs(pairs, val_list=tmp_path / "sample" / "val.txt")
    assert [pair.name for pair in split.val] == ["axial_009", "axial_010", "axial_011"]
    assert "Louis Collins" in (tmp_path / "sample" / "README.md").read_text()  # the notice that copies must carry


def test_a_second_call_finds_it(package, tmp_path):
    folders = make_brain_sample(tmp_path / "sample")
    stamp = (folders[0] / "axial_003.png").stat().st_mtime_ns
    package("t1", b"gone")
    assert make_brain_sample(tmp_path / "sample") == folders
    assert (folders[0] / "axial_003.png").stat().st_mtime_ns == stamp


def test_an_interrupted_call_leaves_nothing(package, tmp_path):
    def interrupted(items, label, length):
        yield from items[:2]
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_brain_sample(tmp_path / "here" / "sample", interrupted)
    assert list((tmp_path / "here").iterdir()) == []


def test_another_folder_is_never_overwritten(package, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("ten years")
    with pytest.raises(InputError, match="mine: holds something else"):
        make_brain_sample(tmp_path / "mine")
    assert (tmp_path / "mine" / "thesis.txt").read_text() == "ten years"


def test_a_sample_that_lost_files_is_told(package, tmp_path):
    images, _ = make_brain_sample(tmp_path / "sample")
    (images / "axial_005.png").unlink()
    with pytest.raises(InputError, match="delete it or choose another folder"):
        make_brain_sample(tmp_path / "sample")


def test_without_the_package(tmp_path, monkeypatch):
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(InputError, match="pip install --no-deps nilearn"):
        make_brain_sample(tmp_path / "sample")
    assert not (tmp_path / "sample").exists()


VOLUME = np.zeros(SHAPE, np.uint8)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"not gzip", "cannot be read"),
        (nifti(VOLUME)[:100], "cannot be read"),
        (gzip.compress(b"short"), "not a NIfTI-1 file"),
        (nifti(VOLUME, magic=b"ni1\0"), "not a NIfTI-1 file"),
        (nifti(VOLUME, size=540), "not a NIfTI-1 file"),
        (nifti(VOLUME, rank=4), "4 dimensions"),
        (nifti(VOLUME, shape=(32767, 32767, 32767)), "volume that fits"),
        (nifti(VOLUME, shape=(-48, -52, 20)), "volume that fits"),
        (nifti(VOLUME, shape=(0, 52, 20)), "volume that fits"),
        (nifti(VOLUME, datatype=16, bits=32), "data type 16"),
        (nifti(VOLUME, offset=float("nan")), "impossible data offset"),
        (nifti(VOLUME, offset=float("inf")), "impossible data offset"),
        (nifti(VOLUME, offset=0.0), "impossible data offset"),
        (nifti(VOLUME[:, :, :5]), "ends after"),
    ],
)
def test_a_damaged_volume(package, tmp_path, content, message):
    package("gm", content)
    with pytest.raises(InputError, match=message) as caught:
        make_brain_sample(tmp_path / "sample")
    assert "mni_icbm152_gm" in str(caught.value)
    assert "pip install" in str(caught.value)


def test_volumes_of_different_sizes(package, tmp_path):
    package("wm", nifti(np.zeros((48, 52, 19), np.uint8), shape=(48, 52, 19)))
    with pytest.raises(InputError, match="different sizes"):
        make_brain_sample(tmp_path / "sample")


def test_equals_the_prepared_real_data_set(real_data, tmp_path):
    if importlib.util.find_spec("nilearn") is None:
        pytest.skip("nilearn is not installed: pip install --no-deps nilearn")
    expected = real_data("mni152_nilearn")
    for folder in make_brain_sample(tmp_path / "sample"):
        paths = sorted((expected / folder.name).glob("*.png"))
        assert [path.name for path in sorted(folder.iterdir())] == [path.name for path in paths]
        for path in paths:
            np.testing.assert_array_equal(np.asarray(Image.open(folder / path.name)), np.asarray(Image.open(path)))
