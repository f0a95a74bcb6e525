from __future__ import annotations

import threading
import time

import numpy as np
import pytest

from unet_edge.data import looking
from unet_edge.data.cache import FactsCache
from unet_edge.data.looking import look_at_all
from unet_edge.data.pairing import Pair, pair_files


@pytest.fixture
def pairs(data_set):
    return pair_files(*data_set(6))[0]


def test_what_is_found_has_the_order_of_the_pairs(pairs, monkeypatch):
    monkeypatch.setattr(looking, "usable_cores", lambda: 3)

    def look(cache, pair):
        time.sleep(0.03 if pair is pairs[0] else 0)
        return pair.name

    assert look_at_all(look, pairs, "Looking") == [pair.name for pair in pairs]


@pytest.mark.parametrize("cores", [1, 3])
def test_as_many_look_as_there_are_usable_cores(pairs, monkeypatch, cores):
    monkeypatch.setattr(looking, "usable_cores", lambda: cores)
    together = threading.Barrier(cores)

    def look(cache, pair):
        together.wait(timeout=10)
        return threading.get_ident()

    assert len(set(look_at_all(look, pairs, "Looking"))) == cores


def test_fewer_look_where_the_images_would_not_fit_into_memory(pairs, folders, save, photo, monkeypatch):
    save(folders[0] / "a3.png", photo(200, 300))
    monkeypatch.setattr(looking, "usable_cores", lambda: 8)
    for bytes_a_pixel, threads in ((2 * 3 * looking.PEAK, 3), (1, 1), (10_000, 8)):
        monkeypatch.setattr(looking, "free_memory", lambda free=bytes_a_pixel * 200 * 300: free)
        assert looking._threads(pairs) == threads
    np.save(folders[0] / "a3.npy", photo(200, 300))
    assert looking._threads([Pair("a3", folders[0] / "a3.npy", folders[1] / "a3.png")]) == 8
    (folders[0] / "a3.png").unlink()
    assert looking._threads(pairs) == 8


def test_an_interrupted_look_keeps_what_it_found(pairs):
    def progress(items, label, length):
        assert (label, length) == ("Looking", 6)
        yield next(iter(items))
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        look_at_all(lambda cache, pair: cache.put("seen", pair.image, 1), pairs, "Looking", progress)
    assert FactsCache().get("seen", pairs[0].image) == 1


def test_without_the_cache_nothing_is_kept(pairs, own_cache):
    look_at_all(lambda cache, pair: cache.put("seen", pair.image, 1), pairs, "Looking", cache=False)
    assert not own_cache.exists()
