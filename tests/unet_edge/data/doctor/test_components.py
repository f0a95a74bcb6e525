from __future__ import annotations

import numpy as np
import pytest

from unet_edge.data.doctor.components import object_areas


def flooded(mask):
    """Areas by value, found one pixel at a time."""
    left = {(y, x) for y in range(mask.shape[0]) for x in range(mask.shape[1])}
    found = {}
    while left:
        todo = [left.pop()]
        value, area = int(mask[todo[0]]), 0
        while todo:
            y, x = todo.pop()
            area += 1
            for near in [(y + dy, x + dx) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]:
                if near in left and mask[near] == value:
                    left.remove(near)
                    todo.append(near)
        found.setdefault(value, []).append(area)
    return {value: sorted(areas) for value, areas in found.items()}


@pytest.mark.parametrize("seed", range(40))
def test_objects_are_those_of_a_flood_fill(seed):
    rng = np.random.default_rng(seed)
    size = rng.integers(1, 24, 2)
    mask = rng.integers(0, rng.integers(1, 5), size)
    if seed % 2:  # larger areas
        mask = np.kron(mask, np.ones(rng.integers(1, 5, 2), int))
    assert {value: list(areas) for value, areas in object_areas(mask).items()} == flooded(mask)


def test_a_spiral_is_one_object():
    mask = np.zeros((41, 41), np.uint8)
    top, left, bottom, right = 0, 0, 40, 40
    while top < bottom:
        mask[top, left : right + 1] = mask[top : bottom + 1, right] = 1
        mask[bottom, left + 2 : right + 1] = mask[top + 2 : bottom + 1, left + 2] = 1
        top, left, bottom, right = top + 2, left + 2, bottom - 2, right - 2
    assert {value: list(areas) for value, areas in object_areas(mask).items()} == flooded(mask)
