"""What is remembered of pairs, and what is not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from unet_edge.data.cache import FactsCache
from unet_edge.data.doctor.look import examine


def test_a_fit_is_remembered_for_its_own_image_alone(brain):
    cache, right, wrong = FactsCache(), brain[4], replace(brain[4], image=brain[16].image)
    first, other = examine(cache, right).fit, examine(cache, wrong).fit
    assert first.here > other.here + 0.05
    assert examine(cache, right).fit == first
    assert examine(cache, wrong).fit == other


def test_what_was_remembered_comes_back_as_it_was(brain):
    cache = FactsCache()
    seen = [examine(cache, pair) for pair in brain[:3]]
    cache.save()
    assert [examine(FactsCache(), pair) for pair in brain[:3]] == seen


@pytest.mark.parametrize("damage", [None, 7, [], [1], [1, {}], [1, {"sha256": 3}, "x", None], [1, {}, "", {}, 5]])
def test_damaged_memory_is_not_believed(brain, damage):
    cache = FactsCache()
    seen = examine(cache, brain[0])
    cache.put("doctor", brain[0].mask, damage)
    assert examine(cache, brain[0]) == seen
    cache.put("doctor", brain[0].image, damage)
    assert examine(cache, brain[0]) == seen


def test_files_that_cannot_be_read_are_left_to_the_scan(folders, save, photo, two_classes, data_set):
    from unet_edge.data.pairing import pair_files

    pairs, _ = pair_files(*data_set(1))
    pairs[0].image.write_bytes(b"no image")
    found = examine(FactsCache(), pairs[0])
    assert (found.image, found.mask, found.fit) == (None, None, None)
