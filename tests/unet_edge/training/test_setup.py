"""What a data set and the options make of each other before training: split, classes, weights, refusals, warnings."""

import dataclasses

import pytest

from unet_edge.checkpoint import read_checkpoint
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.setup import sided_classes
from unet_edge.training.start import DataConfig, train
from unet_edge_runtime.errors import DatasetError, InputError

from .conftest import QUICK, SMALL


def test_the_seed_decides_the_split(tmp_path, pairs_folder):
    for seed in (1, 2):
        config = dataclasses.replace(QUICK, epochs=1, seed=seed)
        train(DataConfig(*pairs_folder, validation=50), tmp_path / str(seed), SMALL, config, "cpu")
    first, second = (RunFolder(tmp_path / str(seed)).read_split()["val"] for seed in (1, 2))
    assert first != second


def test_validation_folders_with_an_unseen_value_are_refused(tmp_path, pairs_folder):
    import numpy as np
    from PIL import Image

    val_images, val_masks = tmp_path / "vi", tmp_path / "vm"
    val_images.mkdir()
    val_masks.mkdir()
    Image.new("RGB", (32, 32)).save(val_images / "a.png")
    mask = np.zeros((32, 32), np.uint8)
    mask[0] = 77
    Image.fromarray(mask).save(val_masks / "a_mask.png")
    data = DataConfig(*pairs_folder, val_images=val_images, val_masks=val_masks)
    with pytest.raises(DatasetError, match=r"a_mask\.png.*77"):
        train(data, tmp_path / "run", SMALL, QUICK, "cpu")


def test_wrong_classes_and_names_are_refused(tmp_path, pairs_folder):
    with pytest.raises(InputError, match=r"--classes 7, but the masks hold 3 values \(0, 100, 255\)"):
        train(DataConfig(*pairs_folder), tmp_path / "a", dataclasses.replace(SMALL, classes=7), QUICK, "cpu")
    with pytest.raises(InputError, match="2 class names for 3 mask values"):
        train(DataConfig(*pairs_folder, class_names=("a", "b")), tmp_path / "b", SMALL, QUICK, "cpu")


def test_balanced_class_weights_come_from_the_masks_and_survive_a_resume(tmp_path, pairs_folder):
    from unet_edge.losses import balanced_weights
    from unet_edge.training.setup import gather

    data = DataConfig(*pairs_folder)
    config = dataclasses.replace(QUICK, epochs=1, class_weights="balanced")
    train(data, tmp_path / "run", SMALL, config, "cpu")
    _, scan = gather(data, 0, None)
    expected = balanced_weights([scan.counts[value] for value in (0, 100, 255)])
    saved = read_checkpoint(tmp_path / "run" / "last.pth").state["train_config"]["class_weights"]
    assert tuple(map(float, saved.split(","))) == expected
    assert len(set(expected)) == 3
    train(data, tmp_path / "plain", SMALL, dataclasses.replace(config, class_weights="none"), "cpu")
    losses = [RunFolder(tmp_path / name).read_metrics()[0]["loss"] for name in ("run", "plain")]
    assert losses[0] != losses[1]
    with pytest.raises(InputError, match="2 class weights for 3 mask values: give one a class"):
        train(data, tmp_path / "other", SMALL, dataclasses.replace(config, class_weights="1,2"), "cpu")
    assert not (tmp_path / "other").exists()


def test_a_single_pixel_at_the_bottom_is_refused_before_training(tmp_path, pairs_folder):
    network = dataclasses.replace(SMALL, depth=4, scale=0.25)
    with pytest.raises(InputError, match=r"16x16 is one pixel after 4 halvings.*smaller --depth"):
        train(DataConfig(*pairs_folder), tmp_path / "run", network, dataclasses.replace(QUICK, batch_size=1), "cpu")


def test_what_is_hardly_meant_is_said(tmp_path, pairs_folder):
    said: list[str] = []
    images, masks = pairs_folder
    data = DataConfig(images, masks, val_images=images, val_masks=masks, ignore=77)
    train(data, tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu", say=said.append)
    assert said[0] == "warning: no mask holds 77, the value to ignore: check --ignore"
    assert said[1].startswith("warning: 12 of 12 validation images train as well (")
    said.clear()
    train(
        DataConfig(images, masks, ignore=100), tmp_path / "b", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu",
        say=said.append,
    )  # fmt: skip
    assert not [line for line in said if "warning" in line]


@pytest.mark.parametrize(
    ("names", "sided"),
    [
        (("ground", "left lung", "lung_Right"), "left lung, lung_Right"),
        (("ground", "kidney-L", "kidney-R"), "kidney-L, kidney-R"),
        (("bright", "cleft", "leftover"), None),
    ],
)
def test_classes_that_mirroring_would_exchange_are_named(make_spec, names, sided):
    spec = make_spec((0, 100, 255))
    spec = spec.replace(classes=tuple(dataclasses.replace(c, name=n) for c, n in zip(spec.classes, names, strict=True)))
    assert sided_classes(spec, dataclasses.replace(QUICK, flip="none")) == []
    found = sided_classes(spec, dataclasses.replace(QUICK, flip="both"))
    assert [f"left becomes right ({sided}): give --flip none" in line for line in found] == [True] * (sided is not None)


def test_a_run_with_left_and_right_classes_is_warned(tmp_path, pairs_folder):
    said: list[str] = []
    data = DataConfig(*pairs_folder, class_names=("ground", "left", "right"))
    train(data, tmp_path / "run", SMALL, dataclasses.replace(QUICK, epochs=1), "cpu", say=said.append)
    assert said[0].startswith("warning: --flip horizontal mirrors images")
