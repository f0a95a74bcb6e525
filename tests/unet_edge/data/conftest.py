"""Small data sets made on the spot, and the real ones where they are."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

REAL_DATA = Path(__file__).resolve().parents[4] / "shared" / "data"


@pytest.fixture(autouse=True)
def own_cache(tmp_path, monkeypatch):
    """No test sees the user's cache, or another test's."""
    folder = tmp_path / "the-cache"
    monkeypatch.setenv("UNET_EDGE_CACHE", str(folder))
    return folder


@pytest.fixture
def folders(tmp_path):
    images, masks = tmp_path / "images", tmp_path / "masks"
    images.mkdir()
    masks.mkdir()
    return images, masks


@pytest.fixture
def real_data():
    """Looks up a real data set's folder, or skips."""

    def find(name: str) -> Path:
        folder = REAL_DATA / name
        if not folder.is_dir():
            pytest.skip(f"real data set {name} is not beside the project (../shared/data/{name})")
        return folder

    return find


@pytest.fixture
def save():
    """save(path, array): writes an array as whatever the name says."""

    def write(path: Path, array, **options) -> Path:
        array = np.asarray(array)
        if path.suffix == ".npy":
            np.save(path, array)
        else:
            Image.fromarray(array).save(path, **options)
        return path

    return write


@pytest.fixture
def photo():
    """photo(height, width, channels): a picture with some structure, never constant."""

    def make(height: int = 12, width: int = 16, channels: int = 3):
        plane = np.add.outer(np.arange(height) * 7, np.arange(width) * 3).astype(np.uint8)
        return plane if channels == 1 else np.stack([plane + 40 * c for c in range(channels)], axis=2)

    return make


@pytest.fixture
def two_classes():
    """two_classes(high, height, width): left half 0, right half `high`."""

    def make(high: int = 1, height: int = 12, width: int = 16):
        mask = np.zeros((height, width), np.uint8)
        mask[:, width // 2 :] = high
        return mask

    return make


@pytest.fixture
def data_set(folders, save, photo, two_classes):
    """data_set(count): clean pairs a0, a1, ... of a colour PNG and a {0, 1} mask; returns the two folders."""

    def make(count: int = 4):
        images, masks = folders
        for i in range(count):
            save(images / f"a{i}.png", photo())
            save(masks / f"a{i}.png", two_classes())
        return folders

    return make
