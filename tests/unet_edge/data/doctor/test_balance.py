from __future__ import annotations

import numpy as np
import pytest


@pytest.fixture
def spots(folders, save):
    """spots(count, side, value): images with that many squares, apart from each other, and a large one of value 1."""
    rng = np.random.default_rng(0)

    def make(count=10, side=2, value=2, images=6):
        for number in range(images):
            mask = np.zeros((64, 128), np.uint8)
            mask[:32, :64] = 1
            for spot in range(count):
                y, x = 34 + spot // 10 * 8, 4 + spot % 10 * 8
                mask[y : y + side, x : x + side] = value
            image = rng.integers(0, 255, (64, 128, 3)).astype(np.uint8)
            save(folders[0] / f"{number}.png", image)
            save(folders[1] / f"{number}.png", mask)
        return folders

    return make


def test_objects_that_the_scale_erases(spots, diagnosed, kinds):
    folders = spots(count=10, side=4)
    diagnosis = diagnosed(folders, scale=0.25)  # 16 pixels become 1
    facts = diagnosis.classes[2]
    assert (facts.objects, facts.lost, facts.images) == (60, 60, 6)
    assert facts.scale == 0.36  # 16 * 0.36 ** 2 = 2.07, and 16 * 0.35 ** 2 = 1.96
    assert "--scale 0.36 keeps 99% of them all" in kinds(diagnosis)["tiny"].text
    assert "60 of 60 of class 2" in kinds(diagnosis)["tiny"].text


def test_at_the_scale_that_is_proposed_they_survive(spots, diagnosed, kinds):
    diagnosis = diagnosed(spots(count=10, side=4), scale=0.36)
    assert diagnosis.classes[2].lost == 0
    assert "tiny" not in kinds(diagnosis)


def test_specks_are_no_matter_of_scale(spots, diagnosed, kinds):
    found = kinds(diagnosed(spots(count=3, side=1, value=1), scale=1))
    assert "specks in the masks themselves" in found["specks"].text
    assert "tiny" not in found


def test_holes_in_the_background_are_no_objects(spots, diagnosed, kinds):
    found = kinds(diagnosed(spots(count=10, side=1, value=0), scale=0.5))
    assert not {"tiny", "specks"} & set(found)


def test_a_rare_class_and_what_helps(spots, diagnosed, kinds):
    diagnosis = diagnosed(spots(count=1, side=4))
    assert diagnosis.classes[2].share == 16 / (64 * 128)
    assert "2 (0.20% of pixels)" in kinds(diagnosis)["rare"].text
    assert "--class-weights balanced" in kinds(diagnosis)["rare"].text


def test_shares_leave_out_what_is_ignored(spots, diagnosed):
    diagnosis = diagnosed(spots(count=1, side=4), ignore=2)
    assert sum(info.share for info in diagnosis.classes) == pytest.approx(1)
    assert diagnosis.classes[2].ignored


def test_a_class_on_one_side_alone(spots, diagnosed, kinds, save, tmp_path):
    folders = spots(count=2, side=8)
    plain = np.zeros((64, 128), np.uint8)
    plain[:32, :64] = 1
    for number in range(1, 6):
        save(folders[1] / f"{number}.png", plain)
    listed = tmp_path / "val.txt"
    listed.write_text("0\n")
    found = kinds(diagnosed(folders, val_list=listed))
    assert "class 2 is in no training mask (but in 0.png)" in found["one-sided"].text
    assert "class 2 is in 1 of 6 masks" in found["scarce"].text
