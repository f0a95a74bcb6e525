from __future__ import annotations

import numpy as np
import pytest
from PIL import Image


@pytest.fixture
def photos(folders, save, two_classes):
    """A dozen clean pairs of colour photos; photos(name, image, mask) adds one."""
    rng = np.random.default_rng(3)

    def add(name, image=None, mask=None):
        coarse = rng.integers(60, 110, (5, 7, 3)).astype(np.uint8)
        picture = np.asarray(Image.fromarray(coarse).resize((56, 40))) + 0
        picture[:, 28:] += 100  # the edge that the mask has
        save(folders[0] / f"{name}.png", picture.astype(np.uint8) if image is None else image)
        save(folders[1] / f"{name}.png", two_classes(1, 40, 56) if mask is None else mask)
        return folders

    for number in range(12):
        add(f"clean {number}")
    return add


def suspects(diagnosis):
    return {s.kind: [pair.name for pair in s.pairs] for s in diagnosis.suspicions}


def test_clean_pairs_are_above_suspicion(photos, folders, diagnosed):
    assert suspects(diagnosed(folders)) == {}


EDGE = np.repeat(np.arange(56) >= 28, 3).reshape(1, 56, 3) * np.ones((40, 1, 1))


@pytest.mark.parametrize(
    ("kind", "image"),
    [("dark", (2, 3, 4) + EDGE * 9), ("bright", (251, 251, 250) + EDGE * (4, 4, 5)), ("flat", EDGE * 0 + 128)],
)
def test_pictures_that_show_nothing(photos, diagnosed, kind, image):
    found = suspects(diagnosed(photos("odd", image.astype(np.uint8))))
    assert found == {kind: ["odd"]}


@pytest.mark.parametrize(("kind", "value"), [("empty", 0), ("full", 1)])
def test_masks_of_a_single_value(photos, diagnosed, kind, value):
    assert suspects(diagnosed(photos("odd", mask=np.full((40, 56), value, np.uint8)))) == {kind: ["odd"]}


def test_grey_among_coloured_pictures(photos, diagnosed, kinds):
    grey = np.repeat(np.random.default_rng(1).integers(0, 255, (40, 56, 1)), 3, axis=2).astype(np.uint8)
    assert "1 of 13 images are grey" in kinds(diagnosed(photos("odd", grey)))["grey"].text


def test_sixteen_bits_of_which_twelve_are_used(folders, diagnosed, kinds, save, two_classes):
    rng = np.random.default_rng(2)
    for number in range(10):
        save(folders[0] / f"{number}.png", rng.integers(0, 4096, (40, 56)).astype(np.uint16))
        save(folders[1] / f"{number}.png", two_classes(1, 40, 56))
    found = kinds(diagnosed(folders))
    assert "use little of their 16 bits" in found["dark"].text


def test_folders_given_the_wrong_way_round(photos, folders, diagnosed, kinds, save):
    rng = np.random.default_rng(5)
    for path in folders[0].iterdir():
        save(path, rng.integers(0, 255, (40, 56, 3)).astype(np.uint8))
    diagnosis = diagnosed(folders[::-1])
    assert diagnosis.problems
    assert list(kinds(diagnosis)) == ["exchanged"]
    assert "exchange --images and --masks" in kinds(diagnosis)["exchanged"].text
