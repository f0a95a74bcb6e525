"""A page shows every difference, however small."""

from __future__ import annotations

import numpy as np

from unet_edge_bench.verify.pictures import SIDE, _largest, heat_colors


def test_a_single_pixel_is_not_lost():
    plane = np.zeros((1280, 1918), bool)
    plane[1279, 1917] = True
    small = _largest(plane)
    assert max(small.shape) <= SIDE
    assert small.sum() == 1
    assert small[-1, -1]


def test_the_ramp_gets_lighter_in_every_step():
    colors = heat_colors(64).astype(float) / 255
    linear = np.where(colors <= 0.04045, colors / 12.92, ((colors + 0.055) / 1.055) ** 2.4)
    lightness = np.cbrt(linear @ [0.2126, 0.7152, 0.0722])
    assert (np.diff(lightness) > 0).all()
    assert lightness[0] < 0.2
    assert lightness[-1] > 0.9
