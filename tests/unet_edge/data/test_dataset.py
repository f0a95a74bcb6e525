from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader

from unet_edge.checkpoint import class_infos
from unet_edge.data.dataset import Collate, EpochBatches, SegmentationDataset
from unet_edge.data.pairing import Pair, pair_files
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec

SPEC = ModelSpec(channels=3, classes=class_infos([0, 100, 255]), outputs=3, multiple=16)


def loader(pairs, flip="both", workers=0, epoch=1, start=0, seed=3):
    batches = EpochBatches(len(pairs), 5, seed)
    batches.epoch, batches.start = epoch, start
    dataset = SegmentationDataset(pairs, SPEC, flip, seed)
    return DataLoader(dataset, batch_sampler=batches, collate_fn=Collate(SPEC), num_workers=workers)


def test_image_and_mask_are_flipped_together(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    plain, mirrored = SegmentationDataset(pairs, SPEC), SegmentationDataset(pairs, SPEC, "horizontal", seed=1)
    flipped = 0
    for index in range(len(pairs)):
        x, labels = plain[index, 1]
        y, flipped_labels = mirrored[index, 1]
        if np.array_equal(x, y):
            assert np.array_equal(labels, flipped_labels)
        else:
            flipped += 1
            assert np.array_equal(x[:, :, ::-1], y)
            assert np.array_equal(labels[:, ::-1], flipped_labels)
    assert 0 < flipped < len(pairs)


def test_workers_change_nothing(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    for (a, b), (c, d) in zip(loader(pairs), loader(pairs, workers=2), strict=True):
        assert torch.equal(a, c)
        assert torch.equal(b, d)


def test_an_epoch_entered_in_the_middle_continues_as_the_whole_one(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    whole = list(loader(pairs))
    rest = list(loader(pairs, start=1))
    assert len(whole) == 3
    assert len(rest) == 2
    assert all(torch.equal(a[0], b[0]) for a, b in zip(whole[1:], rest, strict=True))


def test_every_epoch_has_every_item_once_in_another_order():
    batches = EpochBatches(12, 5, seed=0)
    orders = []
    for epoch in (1, 2):
        batches.epoch = epoch
        orders.append([index for batch in batches for index, _ in batch])
    assert sorted(orders[0]) == sorted(orders[1]) == list(range(12))
    assert orders[0] != orders[1]


def test_different_sizes_share_a_batch_and_padding_is_ignored(tmp_path: Path):
    pairs = []
    for number, (height, width) in enumerate([(20, 30), (33, 17)]):
        Image.new("RGB", (width, height), "gray").save(tmp_path / f"{number}.png")
        Image.new("L", (width, height), 100).save(tmp_path / f"{number}_mask.png")
        pairs.append(Pair(str(number), tmp_path / f"{number}.png", tmp_path / f"{number}_mask.png"))
    dataset = SegmentationDataset(pairs, SPEC)
    images, labels = Collate(SPEC)([dataset[0, 1], dataset[1, 1]])
    assert images.shape == (2, 3, 48, 32)
    assert (labels == 1).sum() == 20 * 30 + 33 * 17
    assert (labels == IGNORE_LABEL).sum() == labels.numel() - (labels == 1).sum()


def test_memory_of_the_cache_is_bounded(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    size = 48 * 64 * 4
    dataset = SegmentationDataset(pairs, SPEC, cache_bytes=3 * size)
    first = [dataset[index, 1] for index in range(len(pairs))]
    assert len(dataset.cache) == 3
    again = [dataset[index, 1] for index in range(len(pairs))]
    assert all(np.array_equal(a[0], b[0]) and np.array_equal(a[1], b[1]) for a, b in zip(first, again, strict=True))


def test_scaled_masks_keep_their_classes(pairs_folder):
    pairs, _ = pair_files(*pairs_folder)
    x, labels = SegmentationDataset(pairs, SPEC.replace(scale=0.5))[0, 1]
    assert x.shape[1:] == labels.shape == (24, 32)
    assert set(np.unique(labels)) <= {0, 1, 2}
