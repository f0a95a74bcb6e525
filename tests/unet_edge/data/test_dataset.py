from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from unet_edge.checkpoint import class_infos
from unet_edge.data.augment import Augmenter
from unet_edge.data.dataset import Collate, SegmentationDataset
from unet_edge.data.memory_store import MemoryStore
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.data.prepared import Preparation
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec

SPEC = ModelSpec(channels=3, classes=class_infos([0, 100, 255]), outputs=3, multiple=16)


def dataset(folders, flip="none", crop=None, seed=3, spec=SPEC, **options):
    pairs, problems = pair_files(*folders)
    assert not problems
    return SegmentationDataset(Preparation(pairs, spec), Augmenter(spec, "none", flip, crop), seed, **options)


@pytest.mark.parametrize(("flip", "variants"), [("none", 1), ("horizontal", 2), ("both", 4)])
def test_image_and_mask_are_flipped_together(pairs_folder, flip, variants):
    plain, mirrored = dataset(pairs_folder), dataset(pairs_folder, flip)
    seen = set()
    for index in range(len(plain)):
        x, labels = plain[index, 1, True]
        y, flipped = mirrored[index, 1, True]
        steps = [step for step in np.ndindex(2, 2) if np.array_equal(y, x[:, :: 1 - 2 * step[0], :: 1 - 2 * step[1]])]
        assert len(steps) == 1
        assert np.array_equal(flipped, labels[:: 1 - 2 * steps[0][0], :: 1 - 2 * steps[0][1]])
        seen |= set(steps)
    assert len(seen) == variants


def test_what_is_random_differs_by_epoch_index_and_seed_only(pairs_folder):
    data = dataset(pairs_folder, crop=(16, 16))
    x, labels = data[2, 1, True]
    again = dataset(pairs_folder, crop=(16, 16))
    for other in (5, 1, 7):
        again[other, 1, True]
    assert np.array_equal(again[2, 1, True][0], x)
    assert np.array_equal(again[2, 1, True][1], labels)
    assert not np.array_equal(data[2, 2, True][0], x)
    assert not np.array_equal(dataset(pairs_folder, crop=(16, 16), seed=4)[2, 1, True][0], x)


def test_an_item_that_does_not_count_has_only_ignored_labels(pairs_folder):
    data = dataset(pairs_folder, store=MemoryStore(12, 1 << 20))
    x, labels = data[0, 1, False]
    assert (labels == IGNORE_LABEL).all()
    assert np.array_equal(data[0, 1, True][0], x)
    assert (data[0, 1, True][1] != IGNORE_LABEL).all()


def test_crops_are_pieces_of_the_image_from_everywhere(pairs_folder):
    whole, cropped = dataset(pairs_folder), dataset(pairs_folder, crop=(40, 24))
    (x, labels), places = whole[0, 0, True], set()
    for epoch in range(60):
        y, cut = cropped[0, epoch, True]
        assert y.shape == (3, 40, 24)
        found = [
            (top, left)
            for top in range(48 - 40 + 1)
            for left in range(64 - 24 + 1)
            if np.array_equal(x[:, top : top + 40, left : left + 24], y)
        ]
        assert len(found) == 1
        assert np.array_equal(cut, labels[found[0][0] :, found[0][1] :][:40, :24])
        places |= set(found)
    tops, lefts = zip(*places, strict=True)
    assert (min(tops), max(tops)) == (0, 8)
    assert min(lefts) < 5
    assert max(lefts) > 35


def test_an_image_smaller_than_the_crop_is_filled_up_with_ignored_labels(pairs_folder):
    x, labels = dataset(pairs_folder, crop=(32, 100))[0, 1, True]
    assert x.shape == (3, 32, 100)
    assert labels.shape == (32, 100)
    assert (labels[:, 64:] == IGNORE_LABEL).all()
    assert (labels[:, :64] != IGNORE_LABEL).all()
    assert np.array_equal(x[:, :, 64:], x[:, :, 62:26:-1])  # mirrored, as at prediction


def test_different_sizes_share_a_batch_and_padding_is_ignored(tmp_path: Path):
    pairs = []
    for number, (height, width) in enumerate([(20, 30), (33, 17)]):
        Image.new("RGB", (width, height), "gray").save(tmp_path / f"{number}.png")
        Image.new("L", (width, height), 100).save(tmp_path / f"{number}_mask.png")
        pairs.append(Pair(str(number), tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"))
    data = SegmentationDataset(Preparation(pairs, SPEC))
    images, labels = Collate(SPEC)([data[0, 1, True], data[1, 1, True]])
    assert images.shape == (2, 3, 48, 32)
    assert images.dtype == torch.float32
    assert (labels == 1).sum() == 20 * 30 + 33 * 17
    assert (labels == IGNORE_LABEL).sum() == labels.numel() - (labels == 1).sum()


def test_a_store_changes_nothing_and_is_used(pairs_folder, monkeypatch):
    plain = dataset(pairs_folder, "both", (24, 24))
    kept = dataset(pairs_folder, "both", (24, 24), store=MemoryStore(12, 1 << 20))
    keys = [(index, epoch, True) for epoch in (1, 2) for index in range(len(plain))]
    for key in keys:
        assert all(np.array_equal(a, b) for a, b in zip(plain[key], kept[key], strict=True))
    monkeypatch.setattr(Preparation, "make", lambda self, index: pytest.fail("was kept already"))
    for key in keys:
        kept[key]
