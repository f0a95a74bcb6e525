from __future__ import annotations

import unicodedata

import pytest

from unet_edge.data.pairing import pair_files


@pytest.fixture
def touch(folders):
    """touch(image names, mask names): empty files, since pairing looks at names alone."""

    def make(images, masks):
        for folder, names in zip(folders, (images, masks), strict=True):
            for name in names:
                (folder / name).touch()
        return folders

    return make


def names(pairs):
    return [(pair.name, pair.image.name, pair.mask.name) for pair in pairs]


def test_equal_stems_pair_sorted_by_name(touch):
    pairs, problems = pair_files(*touch(["b.jpg", "a.png"], ["a.png", "b.tif"]))
    assert names(pairs) == [("a", "a.png", "a.png"), ("b", "b.jpg", "b.tif")]
    assert problems == []


@pytest.mark.parametrize("suffix", ["_mask", "_seg", "_segmentation", "_L", "-labels", " (mask)", ".truth", "mask"])
def test_suffix_is_detected(touch, suffix):
    pairs, problems = pair_files(*touch(["a.jpg", "b.jpg"], [f"a{suffix}.png", f"b{suffix}.png"]))
    assert [pair.mask.name for pair in pairs] == [f"a{suffix}.png", f"b{suffix}.png"]
    assert problems == []


def test_the_suffix_that_pairs_most_wins_and_the_rest_is_told(touch):
    pairs, problems = pair_files(*touch(["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png", "a_old.png"]))
    assert len(pairs) == 2
    assert len(problems) == 1
    assert "a_old.png" in problems[0]
    assert "'_mask'" in problems[0]
    assert "--mask-suffix" in problems[0]


def test_a_given_suffix_is_used(touch):
    folders = touch(["a.jpg", "b.jpg"], ["a_mask.png", "b_mask.png", "a_old.png"])
    pairs, problems = pair_files(*folders, mask_suffix="_old")
    assert names(pairs) == [("a", "a.jpg", "a_old.png")]
    assert len(problems) == 3


def test_numbers_do_not_pair_with_longer_numbers(touch):
    pairs, problems = pair_files(*touch(["1.png", "2.png", "10.png"], ["2.png", "10.png"]))
    assert [pair.name for pair in pairs] == ["10", "2"]
    assert len(problems) == 1
    assert "1.png: has no mask" in problems[0]


def test_a_longer_number_is_no_suffix(touch):
    pairs, problems = pair_files(*touch(["1.png"], ["10.png"]))
    assert pairs == []
    assert "no mask belongs to an image" in problems[0]


def test_stems_that_contain_the_suffix(touch):
    pairs, problems = pair_files(*touch(["a.jpg", "a_mask.jpg"], ["a.png", "a_mask.png"]))
    assert [pair.name for pair in pairs] == ["a", "a_mask"]
    assert problems == []


@pytest.mark.parametrize("stem", ["two words", "a[1]", "x (copy)", "a.b.c", "*", "naïve", "写真", "100%", "-n"])
def test_unusual_names(touch, stem):
    pairs, problems = pair_files(*touch([f"{stem}.jpg"], [f"{stem}_mask.gif"]))
    assert [pair.name for pair in pairs] == [stem]
    assert problems == []


def test_composed_and_decomposed_unicode_pair(touch):
    composed, decomposed = (unicodedata.normalize(form, "Größe_é") for form in ("NFC", "NFD"))
    pairs, problems = pair_files(*touch([f"{decomposed}.png"], [f"{composed}.png"]))
    assert [pair.name for pair in pairs] == [composed]
    assert problems == []


def test_one_folder_for_both(tmp_path):
    for name in ("a.jpg", "a_mask.png", "b.jpg", "b_mask.png"):
        (tmp_path / name).touch()
    pairs, problems = pair_files(tmp_path, tmp_path)
    assert names(pairs) == [("a", "a.jpg", "a_mask.png"), ("b", "b.jpg", "b_mask.png")]
    assert problems == []


def test_one_folder_without_a_suffix_is_refused(tmp_path):
    for name in ("a.jpg", "a.png"):
        (tmp_path / name).touch()
    pairs, problems = pair_files(tmp_path, tmp_path)
    assert pairs == []
    assert "suffix" in problems[0]


def test_hidden_and_foreign_files_are_left_out(touch):
    pairs, problems = pair_files(*touch(["a.jpg", ".DS_Store", "Thumbs.db", "._a.jpg", "notes.txt"], ["a.png"]))
    assert [pair.name for pair in pairs] == ["a"]
    assert problems == []


def test_missing_partners_on_either_side(touch):
    pairs, problems = pair_files(*touch(["a.jpg", "b.jpg"], ["b.png", "c.png"]))
    assert [pair.name for pair in pairs] == ["b"]
    assert len(problems) == 2
    assert "a.jpg: has no mask a.*" in problems[0]
    assert "c.png: has no image c.*" in problems[1]
    assert all("remove" in problem for problem in problems)


def test_two_files_of_one_stem_on_either_side(touch):
    _, problems = pair_files(*touch(["a.jpg", "a.png", "b.jpg"], ["a.png", "b.gif", "b.png"]))
    assert len(problems) == 2
    assert "2 images have the same name" in problems[0]
    assert "a.jpg, a.png" in problems[0]
    assert "2 masks have the same name" in problems[1]
    assert "b.gif, b.png" in problems[1]


def test_nothing_pairs_is_one_problem(touch):
    pairs, problems = pair_files(*touch([f"img{i}.jpg" for i in range(30)], [f"truth{i}.png" for i in range(30)]))
    assert pairs == []
    assert len(problems) == 1
    assert "img0.jpg" in problems[0]
    assert "truth0.png" in problems[0]
    assert "--mask-suffix" in problems[0]


def test_empty_and_missing_folders(folders, tmp_path):
    assert "holds no image file" in pair_files(*folders)[1][0]
    assert "is not a folder" in pair_files(tmp_path / "nowhere", folders[1])[1][0]


@pytest.mark.parametrize(
    ("name", "count"),
    [("carvana", 640), ("dsb2018", 531), ("camvid/train", 367), ("isbi2012", 24), ("mni152_nilearn", 138)],
)
def test_real_data_sets_pair_as_they_are(real_data, name, count):
    folder = real_data(name)
    pairs, problems = pair_files(folder / "images", folder / "masks")
    assert (len(pairs), problems) == (count, [])


def test_a_folder_of_other_masks_is_one_problem(touch):
    images, masks = touch([f"{number}.jpg" for number in range(40)], ["7.png"])
    pairs, problems = pair_files(images, masks)
    assert [pair.name for pair in pairs] == ["7"]
    (problem,) = problems
    assert problem == (
        f"{masks}: has masks of only 1 of 40 images ({images / '0.jpg'} needs 0.*): is it the folder of their masks?"
    )
