from __future__ import annotations

import json
from pathlib import Path

import pytest

from unet_edge.data.pairing import Pair
from unet_edge.data.split import Split, split_pairs
from unet_edge_runtime.errors import InputError


def make(names):
    return [Pair(name, Path(f"images/{name}.jpg"), Path(f"masks/{name}_mask.gif")) for name in names]


@pytest.fixture
def cars():
    """12 cars with 8 views each."""
    return make(f"car{car:02d}_{view:02d}" for car in range(12) for view in range(8))


@pytest.fixture
def listing(tmp_path):
    def write(text):
        path = tmp_path / "val.txt"
        path.write_text(text, encoding="utf-8")
        return path

    return write


def names(pairs):
    return [pair.name for pair in pairs]


def groups(pairs):
    return {pair.name.partition("_")[0] for pair in pairs}


def test_percent_of_all_pairs_on_disjoint_sorted_sides(cars):
    split = split_pairs(cars, percent=25)
    assert len(split.val) == 24
    assert sorted(names(split.train) + names(split.val)) == names(cars)
    assert names(split.train) == sorted(names(split.train))
    assert names(split.val) == sorted(names(split.val))


def test_same_seed_same_split_whatever_the_order(cars):
    assert split_pairs(cars, seed=3) == split_pairs(cars[::-1], seed=3)
    assert split_pairs(cars, seed=3) != split_pairs(cars, seed=4)


def test_the_split_is_the_same_for_ever():
    # Saved runs and published scores rely on it.
    assert names(split_pairs(make("abcdefghij"), percent=30).val) == ["b", "h", "i"]


@pytest.mark.parametrize(("percent", "val"), [(0, 0), (0.1, 1), (99.9, 9)])
def test_one_pair_stays_on_either_side(percent, val):
    split = split_pairs(make("abcdefghij"), percent=percent)
    assert (len(split.train), len(split.val)) == (10 - val, val)


@pytest.mark.parametrize("seed", range(5))
def test_groups_never_leak(cars, seed):
    split = split_pairs(cars, percent=20, seed=seed, group_by="^[^_]+")
    assert not groups(split.train) & groups(split.val)
    assert len(split.train) + len(split.val) == len(cars)
    assert len(groups(split.val)) == 2  # 19.2 of 96 pairs are nearest to 2 cars of 8


def test_first_group_of_the_expression_is_the_key(cars):
    split = split_pairs(cars, group_by=r"car\d(\d)_")  # car00 and car10 share a key
    for pair in split.val:
        assert all(other in split.val for other in cars if other.name[4] == pair.name[4])


def test_a_name_that_the_expression_does_not_match(cars):
    with pytest.raises(InputError, match=r"'zebra' does not match 'car'"):
        split_pairs([*cars, *make(["zebra"])], group_by="car")


def test_the_expression_starts_where_the_name_does(cars):
    with pytest.raises(InputError, match="'car00_00' does not match"):
        split_pairs(cars, group_by="_0")


def test_a_broken_expression(cars):
    with pytest.raises(InputError, match="not a regular expression"):
        split_pairs(cars, group_by="(")


def test_list_of_names_and_file_names(cars, listing):
    path = listing("# two of them\n\ncar00_00\ncar03_05.jpg  \n")
    split = split_pairs(cars, val_list=path)
    assert names(split.val) == ["car00_00", "car03_05"]
    assert len(split.train) == len(cars) - 2


def test_list_of_groups(cars, listing):
    split = split_pairs(cars, val_list=listing("car01\ncar07\n"), group_by="^[^_]+")
    assert groups(split.val) == {"car01", "car07"}
    assert len(split.val) == 16
    assert not groups(split.train) & groups(split.val)


def test_a_list_of_all_images_of_a_group(cars, listing):
    path = listing("".join(f"car01_{view:02d}\n" for view in range(8)) + "car07")
    assert groups(split_pairs(cars, val_list=path, group_by="^[^_]+").val) == {"car01", "car07"}


def test_a_list_that_tears_a_group(cars, listing):
    path = listing("car00_00\ncar01\ncar03_05.jpg\n")
    with pytest.raises(
        InputError, match=r"val\.txt: names only some images of the groups car00, car03, .* whole groups"
    ):
        split_pairs(cars, val_list=path, group_by="^[^_]+")


def test_list_entries_that_match_nothing_are_named(cars, listing):
    with pytest.raises(InputError, match=r"val\.txt: no image is called car01, ghost.*--group-by"):
        split_pairs(cars, val_list=listing("car00_00\ncar01\nghost\n"))


@pytest.mark.parametrize("text", ["", "# nothing\n\n"])
def test_an_empty_list(cars, listing, text):
    with pytest.raises(InputError, match="names no validation image"):
        split_pairs(cars, val_list=listing(text))


def test_a_list_that_takes_everything(cars, listing):
    with pytest.raises(InputError, match="nothing is left to train on"):
        split_pairs(cars, val_list=listing("\n".join(names(cars))))


def test_a_list_that_cannot_be_read(cars, tmp_path):
    with pytest.raises(InputError, match=r"gone\.txt: cannot be read"):
        split_pairs(cars, val_list=tmp_path / "gone.txt")


def test_fraction_keeps_a_part_before_splitting(cars):
    half, quarter = (split_pairs(cars, fraction=fraction) for fraction in (0.5, 0.25))
    assert len(half.train) + len(half.val) == 48
    assert set(names(quarter.train) + names(quarter.val)) < set(names(half.train) + names(half.val))


def test_fraction_keeps_whole_groups(cars):
    split = split_pairs(cars, fraction=0.5, group_by="^[^_]+")
    assert len(split.train) + len(split.val) == 48
    assert len(groups(split.train)) + len(groups(split.val)) == 6


def test_fraction_leaves_a_listed_validation_alone(cars, listing):
    split = split_pairs(cars, fraction=0.1, val_list=listing("car01\n"), group_by="^[^_]+")
    assert len(split.val) == 8
    assert len(split.train) == 8  # one of eleven cars


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"percent": 100}, "below 100 percent"),
        ({"percent": -1}, "below 100 percent"),
        ({"percent": float("nan")}, "below 100 percent"),
        ({"fraction": 0}, "fraction must be above 0"),
        ({"fraction": 1.5}, "fraction must be above 0"),
        ({"group_by": "."}, "1 group cannot be divided"),
        ({"fraction": 0.01}, "1 pair cannot be divided"),
    ],
)
def test_options_out_of_range(options, message):
    with pytest.raises(InputError, match=message):
        split_pairs(make(["aa", "ab", "ac"]), **options)


def test_no_pairs_at_all():
    with pytest.raises(InputError):
        split_pairs([], percent=0)


def test_saved_and_read_back(cars, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    data = json.loads(json.dumps(split_pairs(cars).to_dict()))
    back = Split.from_dict(data)
    assert names(back.val) == names(split_pairs(cars).val)
    assert back.train[0].image == tmp_path / "images" / f"{back.train[0].name}.jpg"
    assert back == Split.from_dict(back.to_dict())


@pytest.mark.parametrize(
    "data", [{}, {"train": []}, {"train": [{"name": "a"}], "val": []}, {"train": [3], "val": []}, [], {"train": 1},
             {"train": [{"name": "a", "image": None, "mask": "m"}], "val": []},
             {"train": [], "val": [{"name": "../../a", "image": "i", "mask": "m"}]},
             {"train": [], "val": [{"name": "/a", "image": "i", "mask": "m"}]}]
)  # fmt: skip
def test_a_damaged_split(data):
    with pytest.raises(InputError, match=r"run/split\.json is damaged"):
        Split.from_dict(data, "run/split.json")


def test_carvana_splits_by_car(real_data):
    from unet_edge.data.pairing import pair_files

    folder = real_data("carvana")
    pairs, _ = pair_files(folder / "images", folder / "masks")
    split = split_pairs(pairs, group_by="^[^_]+", val_list=folder / "val_cars.txt")
    assert (len(split.train), len(split.val)) == (512, 128)
    assert len(groups(split.val)) == 8


def all_folds(pairs, folds, **options):
    return [split_pairs(pairs, folds=folds, fold=fold, **options) for fold in range(1, folds + 1)]


@pytest.mark.parametrize("folds", [2, 5, 12])
def test_over_all_folds_every_pair_validates_once(cars, folds):
    splits = all_folds(cars, folds)
    assert sorted(name for split in splits for name in names(split.val)) == names(cars)
    for split in splits:
        assert sorted(names(split.train) + names(split.val)) == names(cars)
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 1


def test_folds_keep_groups_together_and_their_sizes_within_one_group():
    uneven = make(
        f"{key}_{view}"
        for key, views in zip("abcdefgh", (9, 7, 5, 3, 3, 2, 1, 1), strict=True)
        for view in range(views)
    )
    splits = all_folds(uneven, 3, group_by="^[^_]+")
    for split in splits:
        assert groups(split.val).isdisjoint(groups(split.train))
    assert sorted(name for split in splits for name in names(split.val)) == sorted(names(uneven))
    sizes = [len(split.val) for split in splits]
    assert max(sizes) - min(sizes) <= 9
    assert sorted(sizes) == [10, 10, 11]


def test_folds_follow_the_seed_alone(cars):
    assert all_folds(cars, 4, seed=3) == all_folds(cars[::-1], 4, seed=3)
    assert all_folds(cars, 4, seed=3) != all_folds(cars, 4, seed=4)
    assert names(split_pairs(make("abcdefghij"), folds=3, fold=1).val) == ["c", "f", "g", "h"]  # for ever


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"folds": 1, "fold": 1}, "at least 2 folds, not 1"),
        ({"fold": 1}, "at least 2 folds, not none"),
        ({"folds": 3}, "one of 1 to 3, not none"),
        ({"folds": 3, "fold": 0}, "one of 1 to 3"),
        ({"folds": 3, "fold": 4}, "one of 1 to 3, not 4"),
        ({"folds": 13, "fold": 1, "group_by": "^[^_]+"}, "12 .* cannot make 13 folds"),
        ({"folds": 2, "fold": 1, "val_list": Path("val.txt")}, "give one of them"),
    ],
)
def test_folds_that_cannot_be(cars, options, message):
    with pytest.raises(InputError, match=message):
        split_pairs(cars, **options)
