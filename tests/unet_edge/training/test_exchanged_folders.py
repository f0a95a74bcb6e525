"""Images given as masks and masks as images: named when it is so, and only then."""

import pytest
from PIL import Image

from unet_edge.training.start import DataConfig, train
from unet_edge_runtime.errors import DatasetError

from .conftest import QUICK, SMALL


@pytest.mark.parametrize("suffix", ["", "_mask"])
def test_exchanged_folders_are_named(tmp_path, pairs_folder, suffix):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path.rename(path.with_stem(path.stem.removesuffix("_mask") + suffix))
    hint = f"{images} holds photos and {masks} masks: exchange "
    with pytest.raises(DatasetError) as caught:
        train(DataConfig(masks, images), tmp_path / "run", SMALL, QUICK, "cpu")
    assert caught.value.problems == [f"{hint}--images and --masks"]
    data = DataConfig(images, masks, val_images=masks, val_masks=images)
    with pytest.raises(DatasetError) as caught:
        train(data, tmp_path / "run", SMALL, QUICK, "cpu")
    assert caught.value.problems == [f"{hint}--val-images and --val-masks"]


@pytest.mark.parametrize("kind", ["photos", "anti-aliased", "incomplete"])
def test_wrong_masks_alone_are_no_exchanged_folders(tmp_path, pairs_folder, kind):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path = path.rename(path.with_stem(path.stem.removesuffix("_mask")))
        with Image.open(images / path.name if kind == "photos" else path) as picture:
            changed = picture.reduce(2).resize(picture.size, Image.Resampling.BICUBIC)
            (changed if kind == "anti-aliased" else picture).save(path)
    if kind == "incomplete":
        path.unlink()
    with pytest.raises(DatasetError) as caught:
        train(DataConfig(images, masks), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "exchange" not in str(caught.value)


def test_one_folder_cannot_be_exchanged(tmp_path, pairs_folder):
    images, masks = pairs_folder
    for path in masks.iterdir():
        path.rename(images / path.name)
    (images / "photo 03.png").unlink()
    with pytest.raises(DatasetError, match=r"has no image photo 03") as caught:
        train(DataConfig(images, images), tmp_path / "run", SMALL, QUICK, "cpu")
    assert "exchange" not in str(caught.value)
