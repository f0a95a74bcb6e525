"""Tiles cover the image, and blending adds nothing of its own."""

from __future__ import annotations

import numpy as np
import pytest

from unet_edge_runtime.tiling import OVERLAP, run_tiled, tile_starts


@pytest.mark.parametrize("tile", [1, 4, 16, 64, 100])
@pytest.mark.parametrize("length", [1, 4, 63, 64, 65, 100, 101, 640, 1918])
def test_tiles_cover_a_side(length, tile):
    starts = tile_starts(length, tile)
    assert starts[0] == 0
    if length > tile:
        assert starts[-1] + tile == length
        steps = np.diff(starts)
        assert steps.min() >= 0
        assert steps.max() <= max(1, np.ceil(tile * (1 - OVERLAP)))


@pytest.mark.parametrize("size", [(16, 24), (17, 24), (50, 70), (16, 100)])
def test_what_a_network_keeps_is_kept(size):
    x = np.random.default_rng(0).normal(size=(3, *size)).astype(np.float32)
    tiled = run_tiled(x, (16, 24), lambda tile: tile)
    assert tiled.dtype == np.float32
    np.testing.assert_allclose(tiled, x, rtol=1e-6, atol=1e-6)


def test_a_constant_stays_constant():
    x = np.zeros((1, 50, 70), np.float32)
    for constant in (-3.0, 0.1, 1e4):
        tiled = run_tiled(x, (16, 24), lambda tile, c=constant: np.full((2, *tile.shape[1:]), c, np.float32))
        assert tiled.shape == (2, 50, 70)
        np.testing.assert_allclose(tiled, constant, rtol=5e-7)
    exact = run_tiled(x, (16, 24), lambda tile: np.full((2, *tile.shape[1:]), 2.5, np.float32))
    assert (exact == 2.5).all()


def test_the_middle_of_a_tile_weighs_more_than_its_border():
    """A network that errs at its borders only: blending keeps most of the error out."""
    x = np.zeros((1, 16, 64), np.float32)

    def errs(tile):
        out = np.zeros_like(tile)
        out[:, :, :2] = out[:, :, -2:] = 1
        return out

    tiled = run_tiled(x, (16, 24), errs)
    assert tiled[0, 8, 2:-2].max() < 0.5


def test_every_tile_has_the_networks_size():
    seen = []
    run_tiled(np.zeros((3, 33, 41), np.float32), (16, 24), lambda tile: seen.append(tile.shape) or tile)
    assert set(seen) == {(3, 16, 24)}
