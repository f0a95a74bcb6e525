"""Arithmetic, traffic and time: against torch's own count, and by hand."""

from __future__ import annotations

import pytest
import torch
from torch.utils.flop_counter import FlopCounterMode

from unet_edge.model import UNet, UNetConfig
from unet_edge_export.mil import Package
from unet_edge_export.mil.lint import CHIPS, find_chip, lint
from unet_edge_runtime.errors import InputError


def torch_flops(size, **config):
    """Two a multiply-accumulate, counted while a network without data runs."""
    with torch.device("meta"), FlopCounterMode(display=False) as counter:
        UNet(UNetConfig(**config)).eval()(torch.zeros(1, 3, *size))
    return counter.get_total_flops()


def unet(program, size=512, base=64, depth=4, classes=2):
    """milesial's network with transposed convolutions, as a program: fp16, batch norm folded."""

    def block(x, inputs, channels, side):
        for each in (inputs, channels):
            shape = (1, channels, side, side)
            x = program.op("relu", "fp16", shape, x=program.conv(x, shape, inputs=each))
        return x

    skips = [block(program.input("image", shape=(1, 3, size, size)), 3, base, size)]
    for level in range(1, depth + 1):
        inputs, side = base << (level - 1), size >> level
        half = program.op("max_pool", "fp16", (1, inputs, side, side), x=skips[-1], kernel_sizes=[2, 2], strides=[2, 2])
        skips.append(block(half, inputs, 2 * inputs, side))
    y = skips.pop()
    for level in range(depth - 1, -1, -1):
        channels, side = base << level, size >> level
        settings = {"kernel": (2, 2), "inputs": 2 * channels, "strides": [2, 2], "pad_type": "valid"}
        up = program.conv(y, (1, channels, side, side), kind="conv_transpose", **settings)
        both = program.op("concat", "fp16", (1, 2 * channels, side, side), values=[skips.pop(), up], axis=1)
        y = block(both, 2 * channels, channels, side)
    program.output(program.conv(y, (1, classes, size, size), (1, 1), inputs=base))


def test_the_full_network(build):
    """31.0 M parameters at 512x512: the figures of ../shared/reference/coreml.md, counted there by other means."""
    cost = lint(build(unet)).functions[0].cost
    assert cost.flops == torch_flops((512, 512))
    assert cost.flops == pytest.approx(385e9, rel=0.005)
    assert cost.weights == pytest.approx(62e6, rel=0.01)
    assert cost.traffic == pytest.approx(1.56e9, rel=0.02)
    assert cost.intensity == pytest.approx(247, rel=0.02)
    assert cost.open == 0


def test_the_full_network_on_chips(build):
    """Projections of coreml.md, section 6: 84 ms on an M1 Max, 20 to 26 ms on the M3 Pro, M4 and M5 Pro."""
    projections = lint(build(unet)).functions[0].projections
    assert set(projections) == set(CHIPS)
    assert projections["m1"].milliseconds == pytest.approx(84, abs=0.5)
    for chip in ("m3", "m4", "m5"):
        assert 20 <= projections[chip].milliseconds <= 26
    assert all(each.status == "projection, not a measurement" for each in projections.values())
    assert all(each.limit == "arithmetic" for each in projections.values())


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_a_converted_network(converted, up):
    cost = lint(Package.open(converted(up))).functions[0].cost
    assert cost.flops == torch_flops((64, 64), base_channels=4, depth=2, up=up)
    assert cost.open == 0


def test_one_convolution_by_hand(build):
    def fill(program):
        x = program.input(shape=(1, 8, 10, 12))
        program.output(program.conv(x, (1, 4, 10, 12), (3, 5), inputs=2, groups=4))

    function = lint(build(fill)).functions[0]
    (operation,) = function.cost.operations
    assert operation.macs == 4 * 10 * 12 * 2 * 3 * 5
    assert operation.weights == 4 * 2 * 3 * 5 * 2
    assert operation.traffic == operation.weights + 2 * (8 + 4) * 10 * 12
    assert function.cost.interface == 2 * (8 + 4) * 10 * 12


def test_matrix_products(build):
    def fill(program):
        a = program.input("a", shape=(1, 1, 6, 5))
        b = program.input("b", shape=(1, 1, 6, 7))
        y = program.op("matmul", "fp16", (1, 1, 5, 7), x=a, y=b, transpose_x=True, transpose_y=False)
        program.output(program.op("linear", "fp16", (1, 1, 5, 3), x=y, weight=program.weight((3, 7))))

    operations = lint(build(fill)).functions[0].cost.operations
    assert [each.macs for each in operations] == [5 * 7 * 6, 5 * 3 * 7]


def test_open_shapes_are_counted_as_open(build):
    def fill(program):
        x = program.input(shape=(1, 16, None, None), ranges=((1, 1), (16, 16), (32, 64), (32, 64)))
        program.output(program.conv(x, (1, 16, None, None)))

    cost = lint(build(fill)).functions[0].cost
    assert (cost.operations, cost.open, cost.flops) == ((), 1, 0)


def test_what_limits_a_prediction(build):
    def small(program):
        program.output(program.op("relu", "fp16", (1, 16, 8, 8), x=program.input(shape=(1, 16, 8, 8))))

    def moving(program):
        shape = (1, 64, 1024, 1024)
        program.output(program.op("relu", "fp16", shape, x=program.input(shape=shape)))

    first, second = lint(build(small, moving)).functions
    assert first.projections["m1"].limit == "dispatch"
    assert first.projections["m1"].milliseconds == 0.1
    assert second.projections["m1"].limit == "memory"
    assert second.projections["m1"].milliseconds == pytest.approx(2 * 2 * 64 * 1024**2 / 68e6)


def test_every_chip_says_where_its_figures_are_from():
    for chip in CHIPS.values():
        assert chip.peak.source
        assert chip.bandwidth_source
        assert chip.measured is not None or chip.claimed is not None


@pytest.mark.parametrize(("name", "chip"), [("M1", "m1"), ("m2 Pro", "m2"), ("Apple M3 Max", "m3"), ("A17-Pro", "a17")])
def test_names_of_chips(name, chip):
    assert find_chip(name).name == chip


@pytest.mark.parametrize("name", ["", "m99", "a12", "intel", "m2 ultra"])
def test_an_unknown_chip_gets_the_list(name):
    with pytest.raises(InputError, match="choose one of m1, m2, m3, m4, m5, a14, a15, a16, a17, a18"):
        find_chip(name)
