"""Batches that travel ahead: the order of copies. That they run beside the computation only a GPU can show."""

from __future__ import annotations

import pytest
import torch

from unet_edge.data.prefetch import _ahead, prefetch


def batches(count, told):
    for number in range(count):
        told.append(f"load {number}")
        yield torch.full((1,), number), torch.full((1,), -number)


class Copy:
    def __init__(self, told):
        self.told = told

    def start(self, batch):
        self.told.append(f"start {int(batch[0])}")
        return batch

    def finish(self, moving):
        self.told.append(f"finish {int(moving[0])}")
        return moving


@pytest.mark.parametrize("count", [0, 1, 2, 3])
def test_every_batch_comes_once_and_in_order(count):
    arrived = [(int(image), int(label)) for image, label in _ahead(batches(count, []), Copy([]))]
    assert arrived == [(number, -number) for number in range(count)]


def test_the_next_copy_starts_before_a_batch_is_computed():
    told = []
    for image, _ in _ahead(batches(3, told), Copy(told)):
        told.append(f"compute {int(image)}")
    assert told == [
        *("load 0", "start 0", "load 1", "start 1", "finish 0", "compute 0"),
        *("load 2", "start 2", "finish 1", "compute 1", "finish 2", "compute 2"),
    ]


def test_other_devices_get_the_batches_as_they_are():
    told, made = [], [(torch.zeros(1), torch.ones(1)), (torch.zeros(2), torch.ones(2))]
    assert all(ours is theirs for ours, theirs in zip(prefetch(made, torch.device("cpu")), made, strict=True))
    for image, _ in prefetch(batches(2, told), torch.device("mps")):
        told.append(f"compute {int(image)}")
    assert told == ["load 0", "compute 0", "load 1", "compute 1"]
