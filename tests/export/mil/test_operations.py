"""Each operation against PyTorch, at odd shapes, with every padding and sampling mode."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from torch.nn import functional

from unet_edge_export.mil import Interpreter
from unet_edge_export.mil.operations import EXACT, OPERATIONS
from unet_edge_export.mil.resize import grid_points
from unet_edge_runtime.errors import ModelFileError

from .building import Program

TESTED = set()


def numbers(*shape, seed=0, low=-2.0, high=2.0):
    return np.random.default_rng(seed).uniform(low, high, shape).astype(np.float32)


@pytest.fixture
def run(tmp_path):
    """A function (operation, expected, inputs, **parameters): execute one operation and compare."""

    def compare(kind, expected, inputs, dtype="fp32", tolerance=2e-6, **parameters):
        TESTED.add(kind)
        expected = [value.numpy() if isinstance(value, torch.Tensor) else np.asarray(value) for value in expected]
        program = Program()
        types = {"f": "fp32", "i": "int32", "b": "bool"}
        bound = {}
        for key, value in inputs.items():
            many = value if isinstance(value, list) else [value]
            names = [program.input(f"{key}{index}", one.shape) for index, one in enumerate(many)]
            for index, one in enumerate(many):
                if one.dtype != np.float32:
                    kinds = {"b": "bool", "i": "int32"}
                    to = kinds[one.dtype.kind]
                    names[index] = program.op("cast", one.shape, to, x=names[index], dtype=to)
            bound[key] = names if isinstance(value, list) else names[0]
        outs = program.op(
            kind, [one.shape for one in expected], [types[one.dtype.kind] for one in expected], **bound, **parameters
        )
        for name, one in zip(outs, expected, strict=True):
            final = name if one.dtype != np.bool_ else program.op("cast", one.shape, "int32", x=name, dtype="int32")
            program.output(final, "int32" if one.dtype.kind in "bi" else "fp32")
        feeds = {
            f"{key}{index}": one.astype(np.float32)
            for key, value in inputs.items()
            for index, one in enumerate(value if isinstance(value, list) else [value])
        }
        results = Interpreter(program.write(tmp_path / "one.mlpackage")).predict(feeds)
        for got, one in zip(results.values(), expected, strict=True):
            assert got.shape == one.shape
            np.testing.assert_allclose(got, one, rtol=tolerance, atol=tolerance)

    return compare


def t(array):
    return torch.from_numpy(array)


def pairs(pads):
    """MIL's (before, after) of each side in order -> torch's, from the last."""
    return [side for index in reversed(range(len(pads) // 2)) for side in pads[2 * index : 2 * index + 2]]


@pytest.mark.parametrize("bias", [True, False])
@pytest.mark.parametrize(
    ("sides", "kernel", "strides", "dilations", "pad_type", "pad"),
    [
        ((7, 9), (3, 3), (1, 1), (1, 1), "custom", (1, 1, 1, 1)),
        ((7, 9), (3, 2), (2, 1), (1, 2), "custom", (0, 2, 1, 0)),
        ((8, 9), (2, 3), (2, 2), (1, 1), "valid", None),
        ((7, 10), (3, 4), (2, 3), (1, 1), "same", None),
        ((7, 10), (4, 4), (1, 3), (1, 1), "same_lower", None),
        ((5, 11), (5, 3), (1, 1), (1, 3), "same", None),
        ((1, 1), (1, 1), (1, 1), (1, 1), None, None),
        ((13,), (3,), (2,), (2,), "custom", (2, 1)),
        ((4, 5, 6), (2, 3, 2), (1, 2, 1), (1, 1, 1), "custom", (1, 0, 1, 1, 0, 2)),
    ],
)
@pytest.mark.parametrize("groups", [1, 2])
def test_conv(run, sides, kernel, strides, dilations, pad_type, pad, groups, bias):
    x, weight, b = numbers(2, 4, *sides), numbers(6, 4 // groups, *kernel, seed=1), numbers(6, seed=2)
    flat = list(pad or [0] * 2 * len(sides))
    if pad_type in ("same", "same_lower"):
        for axis, (n, k, s, d) in enumerate(zip(sides, kernel, strides, dilations, strict=True)):
            total = max(0, (-(-n // s) - 1) * s + (k - 1) * d + 1 - n)
            less, more = total // 2, total - total // 2
            flat[2 * axis : 2 * axis + 2] = (less, more) if pad_type == "same" else (more, less)
    function = (functional.conv1d, functional.conv2d, functional.conv3d)[len(sides) - 1]
    expected = function(
        functional.pad(t(x), pairs(flat)), t(weight), t(b) if bias else None, strides, 0, dilations, groups
    )
    given = {"strides": np.array(strides, np.int32), "dilations": np.array(dilations, np.int32)}
    if pad_type:
        given["pad_type"] = pad_type
    if pad:
        given["pad"] = np.array(pad, np.int32)
    if bias:
        given["bias"] = b
    run("conv", [expected], {"x": x}, weight=weight, groups=np.int32(groups), tolerance=1e-5, **given)


@pytest.mark.parametrize(
    ("kernel", "strides", "padding", "output_padding", "dilations", "groups"),
    [
        ((2, 2), (2, 2), (0, 0), (0, 0), (1, 1), 1),
        ((3, 3), (2, 2), (1, 1), (0, 0), (1, 1), 1),
        ((3, 3), (2, 2), (1, 1), (1, 1), (1, 1), 1),
        ((4, 3), (3, 2), (1, 0), (2, 1), (1, 2), 2),
        ((2, 3), (1, 3), (0, 1), (0, 2), (2, 1), 2),
    ],
)
def test_conv_transpose(run, kernel, strides, padding, output_padding, dilations, groups):
    x, weight, bias = numbers(2, 4, 3, 5), numbers(4, 6 // groups, *kernel, seed=1), numbers(6, seed=2)
    arguments = (strides, padding, output_padding, groups, dilations)
    expected = functional.conv_transpose2d(t(x), t(weight), t(bias), *arguments)
    given = {"pad_type": "custom", "pad": np.repeat(np.array(padding, np.int32), 2)}
    given |= {"strides": np.array(strides, np.int32), "dilations": np.array(dilations, np.int32)}
    shape = np.array(expected.shape, np.int32)
    common = {"weight": weight, "bias": bias, "groups": np.int32(groups), "tolerance": 1e-5, **given}
    run("conv_transpose", [expected], {"x": x}, output_shape=shape, **common)
    if not any(output_padding):
        run("conv_transpose", [expected], {"x": x}, **common)


@pytest.mark.parametrize(("sides", "kernel", "strides"), [((5,), (3,), (2,)), ((2, 3, 4), (2, 3, 2), (2, 1, 2))])
def test_conv_transpose_of_other_ranks(run, sides, kernel, strides):
    x, weight = numbers(1, 3, *sides), numbers(3, 2, *kernel, seed=1)
    function = functional.conv_transpose1d if len(sides) == 1 else functional.conv_transpose3d
    expected = function(t(x), t(weight), None, strides)
    run("conv_transpose", [expected], {"x": x}, weight=weight, strides=np.array(strides, np.int32), tolerance=1e-5)


def test_conv_transpose_same_is_as_large_as_its_stride_says(run):
    x, weight = numbers(1, 3, 4, 5), numbers(3, 2, 3, 4, seed=1)
    full = functional.conv_transpose2d(t(x), t(weight), None, (2, 2))
    parameters = {"weight": weight, "strides": np.array((2, 2), np.int32), "pad_type": "same", "tolerance": 1e-5}
    run("conv_transpose", [full[:, :, 0:8, 1:11]], {"x": x}, **parameters)


POOLS = [
    ((8, 10), (2, 2), (2, 2), "valid", None, False),
    ((7, 9), (3, 2), (2, 2), "custom", (1, 1, 0, 0), False),
    ((7, 9), (3, 3), (2, 1), "custom", (0, 2, 1, 0), False),
    ((7, 10), (3, 3), (2, 2), "same", None, False),
    ((7, 10), (3, 3), (2, 3), "same_lower", None, False),
    ((7, 9), (3, 3), (2, 2), "custom", (1, 1, 1, 1), True),
    ((6, 9), (2, 3), (3, 2), "valid", None, True),
    ((9,), (3,), (2,), "custom", (1, 1), False),
    ((4, 5, 6), (2, 2, 3), (2, 1, 2), "valid", None, False),
]


def pool_pads(sides, kernel, strides, pad_type, pad):
    flat = list(pad or [0] * 2 * len(sides))
    if pad_type.startswith("same"):
        for axis, (n, k, s) in enumerate(zip(sides, kernel, strides, strict=True)):
            total = max(0, (-(-n // s) - 1) * s + k - n)
            less, more = total // 2, total - total // 2
            flat[2 * axis : 2 * axis + 2] = (less, more) if pad_type == "same" else (more, less)
    return flat


@pytest.mark.parametrize(("sides", "kernel", "strides", "pad_type", "pad", "ceil"), POOLS)
def test_max_pool(run, sides, kernel, strides, pad_type, pad, ceil):
    x = numbers(2, 3, *sides)
    function = (functional.max_pool1d, functional.max_pool2d, functional.max_pool3d)[len(sides) - 1]
    flat = pool_pads(sides, kernel, strides, pad_type, pad)
    if ceil:
        expected = function(t(x), kernel, strides, flat[::2], ceil_mode=True)
    else:
        expected = function(functional.pad(t(x), pairs(flat), value=-torch.inf), kernel, strides)
    given = {"pad": np.array(pad, np.int32)} if pad else {}
    run(
        "max_pool",
        [expected],
        {"x": x},
        kernel_sizes=np.array(kernel, np.int32),
        strides=np.array(strides, np.int32),
        pad_type=pad_type,
        ceil_mode=np.bool_(ceil),
        **given,
    )


@pytest.mark.parametrize("exclude", [False, True])
@pytest.mark.parametrize(("sides", "kernel", "strides", "pad_type", "pad", "ceil"), POOLS)
def test_avg_pool(run, sides, kernel, strides, pad_type, pad, ceil, exclude):
    x = numbers(2, 3, *sides)
    function = (functional.avg_pool1d, functional.avg_pool2d, functional.avg_pool3d)[len(sides) - 1]
    flat = pool_pads(sides, kernel, strides, pad_type, pad)
    if ceil:
        expected = function(t(x), kernel, strides, flat[::2], ceil_mode=True, count_include_pad=not exclude)
    else:
        expected = function(functional.pad(t(x), pairs(flat)), kernel, strides)
        if exclude:
            expected = expected / function(functional.pad(torch.ones_like(t(x)), pairs(flat)), kernel, strides)
    given = {"pad": np.array(pad, np.int32)} if pad else {}
    run(
        "avg_pool",
        [expected],
        {"x": x},
        kernel_sizes=np.array(kernel, np.int32),
        strides=np.array(strides, np.int32),
        pad_type=pad_type,
        ceil_mode=np.bool_(ceil),
        exclude_padding_from_average=np.bool_(exclude),
        **given,
    )


SIZES = [((5, 7), (10, 14)), ((5, 7), (13, 9)), ((6, 4), (3, 3)), ((1, 3), (4, 1)), ((2, 2), (5, 6)), ((3, 5), (1, 1))]


@pytest.mark.parametrize(("before", "after"), SIZES)
@pytest.mark.parametrize(
    "mode", ["STRICT_ALIGN_CORNERS", "ALIGN_CORNERS", "UNALIGN_CORNERS", "DEFAULT", "OFFSET_CORNERS"]
)
def test_resize_bilinear_reads_at_the_grid_that_mil_defines(run, before, after, mode):
    x = numbers(2, 3, *before)
    expected = x.astype(np.float64)
    for axis in (0, 1):
        points = grid_points(before[axis], after[axis], mode)
        expected = np.apply_along_axis(
            lambda line, p=points: np.interp(p, np.arange(len(line)), line), axis + 2, expected
        )
    expected = expected.astype(np.float32)
    sizes = {"target_size_height": np.int32(after[0]), "target_size_width": np.int32(after[1])}
    run("resize_bilinear", [expected], {"x": x}, sampling_mode=mode, **sizes)
    parameters = {"interpolation_mode": "LINEAR", "sampling_mode": mode, "resized_dims": np.uint32(2)}
    run("resize", [expected], {"x": x}, shape=np.array([1, *after], np.int32), **parameters)


def test_grids_are_those_of_the_documentation():
    """Two samples, five and six outputs: the tables in coremltools' documentation of resize_bilinear."""
    table = {
        ("UNALIGN_CORNERS", 5): [0, 0.1, 0.5, 0.9, 1],
        ("STRICT_ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
        ("ALIGN_CORNERS", 5): [0, 0.25, 0.5, 0.75, 1],
        ("DEFAULT", 5): [0, 0.4, 0.8, 1, 1],
        ("OFFSET_CORNERS", 5): [0.1, 0.3, 0.5, 0.7, 0.9],
        ("UNALIGN_CORNERS", 6): [0, 0, 1 / 3, 2 / 3, 1, 1],
        ("STRICT_ALIGN_CORNERS", 6): [0, 0.2, 0.4, 0.6, 0.8, 1],
        ("DEFAULT", 6): [0, 1 / 3, 2 / 3, 1, 1, 1],
        ("OFFSET_CORNERS", 6): [1 / 12, 0.25, 5 / 12, 7 / 12, 0.75, 11 / 12],
        ("ALIGN_CORNERS", 1): [0.5],
        ("STRICT_ALIGN_CORNERS", 1): [0],
    }
    for (mode, count), points in table.items():
        np.testing.assert_allclose(grid_points(2, count, mode), points, atol=1e-12)


@pytest.mark.parametrize("align", [True, False, None])
@pytest.mark.parametrize("factors", [(2, 2), (3.0, 1.5), (1.7, 2.3), (0.5, 1)])
def test_upsample_bilinear_is_torchs(run, factors, align):
    x = numbers(2, 3, 10, 6)
    size = [int(np.float32(factor) * np.float32(side)) for factor, side in zip(factors, x.shape[2:], strict=True)]
    expected = functional.interpolate(t(x), size, mode="bilinear", align_corners=align is not False)
    kind = np.int32 if all(isinstance(factor, int) for factor in factors) else np.float32
    given = {} if align is None else {"align_corners": np.bool_(align)}
    height, width = kind(factors[0]), kind(factors[1])
    run("upsample_bilinear", [expected], {"x": x}, scale_factor_height=height, scale_factor_width=width, **given)


def test_upsample_bilinear_without_half_pixels_reads_at_multiples(run):
    x = numbers(1, 2, 4, 5)
    points = [np.minimum(np.arange(2 * n) / 2, n - 1) for n in (4, 5)]
    rows = np.apply_along_axis(lambda line: np.interp(points[0], np.arange(4), line), 2, x)
    expected = np.apply_along_axis(lambda line: np.interp(points[1], np.arange(5), line), 3, rows).astype(np.float32)
    flags = {"align_corners": np.bool_(False), "half_pixel_centers": np.bool_(False)}
    run("upsample_bilinear", [expected], {"x": x}, scale_factor_height=2.0, scale_factor_width=2.0, **flags)


@pytest.mark.parametrize(("factors", "rank"), [((2, 3), 4), ((1.5, 2.0), 4), ((2, 2), 3), ((2, 2), 5)])
def test_upsample_nearest_neighbor(run, factors, rank):
    x = numbers(*(2, 3, 2)[: rank - 2], 6, 4)
    size = [int(side * factor) for side, factor in zip(x.shape[-2:], factors, strict=True)]
    rows, columns = (np.arange(m) * n // m for n, m in zip(x.shape[-2:], size, strict=True))
    kind = np.int32 if isinstance(factors[0], int) else np.float32
    height, width = kind(factors[0]), kind(factors[1])
    expected = x[..., rows, :][..., columns]
    parameters = {"scale_factor_height": height, "scale_factor_width": width}
    run("upsample_nearest_neighbor", [expected], {"x": x}, **parameters)
    if rank == 4:
        torchs = functional.interpolate(t(x), scale_factor=factors, mode="nearest")
        np.testing.assert_array_equal(expected, torchs.numpy())


@pytest.mark.parametrize(("before", "after"), SIZES)
def test_resize_nearest_neighbor(run, before, after):
    x = numbers(1, 2, *before)
    expected = functional.interpolate(t(x), after, mode="nearest")
    sizes = {"target_size_height": np.int32(after[0]), "target_size_width": np.int32(after[1])}
    run("resize_nearest_neighbor", [expected], {"x": x}, **sizes)
    exact = functional.interpolate(t(x), after, mode="nearest-exact")
    parameters = {"interpolation_mode": "NEAREST_NEIGHBOR", "resized_dims": np.uint32(2)}
    shape = np.array(after, np.int32)
    run("resize", [expected], {"x": x}, shape=shape, sampling_mode="DEFAULT", **parameters)
    run("resize", [exact], {"x": x}, shape=shape, sampling_mode="UNALIGN_CORNERS", **parameters)


def test_resize_keeps_a_side_of_zero(run):
    x = numbers(1, 2, 3, 4)
    expected = functional.interpolate(t(x), (3, 9), mode="bilinear", align_corners=True)
    parameters = {"resized_dims": np.uint32(2), "sampling_mode": "STRICT_ALIGN_CORNERS"}
    run("resize", [expected], {"x": x}, shape=np.array([1, 0, 9], np.int32), **parameters)
    run("resize", [expected], {"x": x}, shape=np.array([9], np.int32), **parameters | {"resized_dims": np.uint32(1)})


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
@pytest.mark.parametrize("pad", [(1, 2, 0, 3), (0, 0, 0, 0, 2, 1, 1, 0), (2, 0), (0, 0, 0, 0)])
def test_pad(run, mode, pad):
    x = numbers(1, 2, 4, 5)
    axes = [(0, 0)] * (4 - len(pad) // 2) + [(pad[i], pad[i + 1]) for i in range(0, len(pad), 2)]
    numpys = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[mode]
    expected = np.pad(x, axes, numpys, **({"constant_values": 0.5} if mode == "constant" else {}))
    run("pad", [expected], {"x": x}, pad=np.array(pad, np.int32), mode=mode, constant_val=np.float32(0.5))


@pytest.mark.parametrize("mode", ["constant", "reflect", "replicate"])
def test_pad_of_channels(run, mode):
    x = numbers(2, 5, 3, 4)
    pad = np.array((1, 1, 2, 0, 0, 0), np.int32)
    numpys = {"constant": "constant", "reflect": "reflect", "replicate": "edge"}[mode]
    expected = np.pad(x, [(0, 0), (1, 1), (2, 0), (0, 0)], numpys)
    run("pad", [expected], {"x": x}, pad=pad, mode=mode)


UNARY = {
    "abs": torch.abs,
    "ceil": torch.ceil,
    "exp": torch.exp,
    "floor": torch.floor,
    "identity": lambda x: x,
    "relu": torch.relu,
    "relu6": lambda x: x.clamp(0, 6),
    "round": torch.round,
    "sigmoid": torch.sigmoid,
    "silu": lambda x: x * torch.sigmoid(x),
    "square": lambda x: x * x,
    "tanh": torch.tanh,
}
EPSILON = {"inverse": lambda x: 1 / x, "log": torch.log, "rsqrt": lambda x: 1 / x.sqrt()}
BINARY = {
    "add": torch.add,
    "sub": torch.sub,
    "mul": torch.mul,
    "real_div": torch.div,
    "maximum": torch.maximum,
    "minimum": torch.minimum,
    "greater": torch.gt,
    "greater_equal": torch.ge,
    "less": torch.lt,
    "less_equal": torch.le,
    "equal": torch.eq,
    "not_equal": torch.ne,
}
HALVES = np.arange(-20, 20, dtype=np.float32).reshape(1, 2, 4, 5) / 2


@pytest.mark.parametrize("kind", UNARY)
def test_unary(run, kind):
    run(kind, [UNARY[kind](t(HALVES))], {"x": HALVES})


@pytest.mark.parametrize("kind", EPSILON)
def test_with_epsilon(run, kind):
    x = numbers(2, 3, low=0.5)
    run(kind, [EPSILON[kind](t(x) + 0.25)], {"x": x}, epsilon=np.float32(0.25))
    default = {"inverse": 1e-4, "log": 0.0, "rsqrt": 1e-12}[kind]
    run(kind, [EPSILON[kind](t(x) + default)], {"x": x})


@pytest.mark.parametrize("kind", BINARY)
def test_binary_broadcasts(run, kind):
    y = np.array([[[0.5]], [[-1.0]]], np.float32)
    run(kind, [BINARY[kind](t(HALVES), t(y))], {"x": HALVES, "y": y})
    run(kind, [BINARY[kind](t(HALVES), torch.tensor(1.5))], {"x": HALVES}, y=np.float32(1.5))


def test_whole_numbers_divide_towards_zero(run):
    x, y = np.array([7, -7, 6], np.int32), np.array([2, 2, -4], np.int32)
    run("real_div", [np.array([3, -3, -1], np.int32)], {"x": x, "y": y})


def test_logic_and_choice(run):
    x, y = HALVES > 1, HALVES < 3
    run("logical_and", [x & y], {"x": x, "y": y})
    run("logical_or", [x | y], {"x": x, "y": y})
    run("logical_not", [~x], {"x": x})
    other = numbers(1, 1, 1, 5)
    run("select", [np.where(x, HALVES, other)], {"cond": x, "a": HALVES, "b": other})


def test_parameters_of_activations(run):
    run("leaky_relu", [functional.leaky_relu(t(HALVES), 0.25)], {"x": HALVES}, alpha=np.float32(0.25))
    run("clip", [t(HALVES).clamp(-1, 2.5)], {"x": HALVES}, alpha=np.float32(-1), beta=np.float32(2.5))
    run("sqrt", [t(HALVES).abs().sqrt()], {"x": np.abs(HALVES)})
    for axis in (1, -1):
        run("softmax", [torch.softmax(t(HALVES), axis)], {"x": HALVES}, axis=np.int32(axis))


def test_batch_norm_and_linear(run):
    x = numbers(2, 3, 4, 5)
    mean, variance, gamma, beta = (numbers(3, seed=i, low=0.5) for i in range(4))
    expected = functional.batch_norm(t(x), t(mean), t(variance), t(gamma), t(beta), eps=1e-3)
    parameters = {"mean": mean, "variance": variance, "epsilon": np.float32(1e-3)}
    run("batch_norm", [expected], {"x": x}, gamma=gamma, beta=beta, **parameters)
    run("batch_norm", [functional.batch_norm(t(x), t(mean), t(variance), eps=1e-3)], {"x": x}, **parameters)
    weight, bias = numbers(7, 5, seed=5), numbers(7, seed=6)
    run("linear", [functional.linear(t(x), t(weight), t(bias))], {"x": x}, weight=weight, bias=bias)


@pytest.mark.parametrize("dtype", ["int8", "uint8", "int16", "uint16", "int32", "bool"])
def test_cast_goes_towards_zero_and_saturates(tmp_path, dtype):
    TESTED.add("cast")
    x = np.array([-1e9, -300.7, -1.5, -0.5, 0, 0.5, 1.9, 254.6, 300, 70000, 3e9], np.float32)
    program = Program()
    small = program.op("cast", x.shape, dtype, x=program.input("x", x.shape), dtype=dtype)
    program.output(program.op("cast", x.shape, "fp32", x=small, dtype="fp32"))
    got = Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": x})
    if dtype == "bool":
        expected = x != 0
    else:
        limits = np.iinfo(dtype)
        expected = np.clip(np.trunc(x.astype(np.float64)), limits.min, limits.max)
    np.testing.assert_allclose(next(iter(got.values())), expected, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["int8", "uint8"])
@pytest.mark.parametrize("axis", [None, 1])
def test_quantize_and_dequantize(tmp_path, dtype, axis):
    TESTED.update(["quantize", "dequantize"])
    x = numbers(2, 3, 4, 5, low=-8, high=8)
    scale = np.array([0.02, 0.05, 0.1], np.float32) if axis else np.float32(0.04)
    zero = np.array([0, 7, 3] if axis else 5, dtype)
    program = Program()
    given = {"scale": scale, "zero_point": zero, **({"axis": np.int32(axis)} if axis else {})}
    small = program.op("quantize", x.shape, dtype, input=program.input("x", x.shape), output_dtype=dtype, **given)
    program.output(program.op("dequantize", x.shape, "fp32", input=small, **given))
    got = next(iter(Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": x}).values()))
    shape = (1, 3, 1, 1) if axis else ()
    wide, shift = scale.astype(np.float64).reshape(shape), zero.astype(np.float64).reshape(shape)
    limits = np.iinfo(dtype)
    expected = (np.clip(np.rint(x / wide) + shift, limits.min, limits.max) - shift) * wide
    assert np.unique(expected).size > 50
    np.testing.assert_allclose(got, expected, rtol=1e-5)


@pytest.mark.parametrize("keep", [True, False])
def test_reductions(run, keep):
    x = numbers(2, 3, 4, 5)
    flags = {"keep_dims": np.bool_(keep)}
    functions = {
        "reduce_mean": torch.mean,
        "reduce_sum": torch.sum,
        "reduce_max": torch.amax,
        "reduce_min": torch.amin,
    }
    for kind, function in functions.items():
        run(kind, [function(t(x), (-1, 1), keep)], {"x": x}, axes=np.array([-1, 1], np.int32), tolerance=1e-5, **flags)
        run(kind, [function(t(x), (0, 1, 2, 3), keep)], {"x": x}, tolerance=1e-5, **flags)
    for kind, function in {"reduce_argmax": np.argmax, "reduce_argmin": np.argmin}.items():
        ties = np.round(x)
        for axis in (1, -1):
            expected = function(ties, axis, keepdims=keep).astype(np.int32)
            run(kind, [expected], {"x": ties}, axis=np.int32(axis), **flags)


def test_joining_and_cutting(run):
    a, b = numbers(2, 3, 4), numbers(2, 5, 4, seed=1)
    run("concat", [np.concatenate([a, b], 1)], {"values": [a, b]}, axis=np.int32(-2), interleave=np.bool_(False))
    expected = np.stack([a, a + 1], 2).reshape(2, 6, 4)
    run("concat", [expected], {"values": [a, a + 1]}, axis=np.int32(1), interleave=np.bool_(True))
    run("stack", [np.stack([a, a], 1)], {"values": [a, a]}, axis=np.int32(1))
    run("split", np.split(b, [2], 1), {"x": b}, axis=np.int32(1), split_sizes=np.array([2, 3], np.int32))
    run("split", np.split(b, 2, 2), {"x": b}, axis=np.int32(2), num_splits=np.int32(2))


def test_shapes(run):
    x = numbers(2, 3, 1, 8)
    run("reshape", [x.reshape(2, 12, 2)], {"x": x}, shape=np.array([0, -1, 2], np.int32))
    run("transpose", [x.transpose(3, 0, 2, 1)], {"x": x}, perm=np.array([3, 0, 2, -3], np.int32))
    run("squeeze", [x[:, :, 0]], {"x": x}, axes=np.array([-2], np.int32))
    run("squeeze", [x[:, :, 0]], {"x": x})
    run("expand_dims", [x[:, None, ..., None]], {"x": x}, axes=np.array([1, -1], np.int32))
    run("tile", [np.tile(x, (1, 2, 3, 1))], {"x": x}, reps=np.array([1, 2, 3, 1], np.int32))
    run("shape", [np.array(x.shape, np.int32)], {"x": x})
    y = numbers(2, 8, 3, 4)
    run("pixel_shuffle", [functional.pixel_shuffle(t(y), 2)], {"x": y}, upscale_factor=np.uint32(2))
    z = numbers(2, 2, 6, 4)
    run("pixel_unshuffle", [functional.pixel_unshuffle(t(z), 2)], {"x": z}, downscale_factor=np.uint32(2))


@pytest.mark.parametrize(
    ("expected", "parameters"),
    [
        (np.s_[1:2, 0:3, ::2, -3:-1], {"begin": (1, 0, 0, -3), "end": (2, 3, 4, -1), "stride": (1, 1, 2, 1)}),
        (np.s_[:, 1:, ::-1, :4:3], {"begin": (9, 1, 9, 0), "end": (0, 9, 9, 4), "stride": (1, 1, -1, 3),
                                    "begin_mask": (1, 0, 1, 0), "end_mask": (1, 0, 1, 0)}),
        (np.s_[1, :, -1, 2:1000], {"begin": (1, 0, -1, 2), "end": (0, 0, 0, 2**31 - 1),
                                   "end_mask": (0, 1, 0, 0), "squeeze_mask": (1, 0, 1, 0)}),
    ],
)  # fmt: skip
def test_slice_by_index(run, expected, parameters):
    x = numbers(2, 3, 4, 5)
    kinds = {key: np.bool_ if key.endswith("mask") else np.int32 for key in parameters}
    arrays = {key: np.array(value, kinds[key]) for key, value in parameters.items()}
    run("slice_by_index", [x[expected]], {"x": x}, **arrays)


def test_crop(run):
    x = numbers(1, 2, 6, 7)
    height, width = np.array([1, 0], np.int32), np.array([2, 3], np.int32)
    run("crop", [x[:, :, 1:, 2:4]], {"x": x}, crop_height=height, crop_width=width)


def test_slice_by_size(run):
    x = numbers(2, 3, 4)
    begin, size = np.array([1, 0, -2], np.int32), np.array([1, -1, 2], np.int32)
    run("slice_by_size", [x[1:2, :, 2:4]], {"x": x}, begin=begin, size=size)


def test_a_program_may_not_reflect_more_than_there_is(tmp_path):
    program = Program()
    pads = np.array((0, 4), np.int32)
    program.output(program.op("pad", (2, 8), x=program.input("x", (2, 4)), pad=pads, mode="reflect"))
    with pytest.raises(ModelFileError, match="it reflects 4 of 4 values"):
        Interpreter(program.write(tmp_path / "a.mlpackage")).predict({"x": np.zeros((2, 4), np.float32)})


def test_every_operation_is_tested():
    """Runs last in this file: nothing may be in the table that no test has executed."""
    if len(TESTED) < 20:
        pytest.skip("the tests of the operations were not run")
    assert set(OPERATIONS) == TESTED
    assert set(OPERATIONS) >= EXACT


HOSTILE = {
    "pad": ({"pad": (0, 1 << 20, 0, 1 << 20)}, "declared"),
    "upsample_bilinear": ({"scale_factor_height": 60000.0, "scale_factor_width": 60000.0}, "declared"),
    "upsample_nearest_neighbor": ({"scale_factor_height": 60000.0, "scale_factor_width": 6e4}, "declared"),
    "resize_bilinear": ({"target_size_height": 1 << 20, "target_size_width": 1 << 20}, "declared"),
    "tile": ({"reps": (1, 1, 1 << 20, 1 << 20)}, "declared"),
    "conv": (
        {"weight": np.ones((2, 2, 1, 1), np.float32), "pad_type": "custom", "pad": (0, 1 << 20, 0, 1 << 20),
         "strides": (1 << 19, 1 << 19)},
        "intermediate array",
    ),
    "max_pool": (
        {"kernel_sizes": (1, 1), "pad_type": "custom", "pad": (0, 1 << 20, 0, 1 << 20), "strides": (1 << 19, 1 << 19)},
        "intermediate array",
    ),
    "conv_transpose": (
        {"weight": np.ones((2, 2, 1, 1), np.float32), "pad_type": "custom", "strides": (1 << 20, 1 << 20),
         "pad": (0, (1 << 20) - 1) * 2},
        "intermediate array",
    ),
    "reshape": ({"shape": (1 << 20, 1 << 20)}, "invalid for input"),
    "slice_by_index": ({"begin": (0,) * 4, "end": (1,) * 4, "stride": (0,) * 4}, "cannot be zero"),
    "softmax": ({"axis": 9}, "axis is 9 for 4 sides"),
    "relu": ({"x": "a text"}, "parameter x is no tensor"),
    "mul": ({}, "lacks 'y'"),
}  # fmt: skip


@pytest.mark.parametrize("kind", HOSTILE)
def test_a_hostile_parameter_is_refused_before_anything_is_allocated(tmp_path, kind):
    parameters, message = HOSTILE[kind]
    program = Program()
    x = program.input("x", (1, 2, 2, 2))
    parameters = {
        key: np.asarray(value, np.int32) if isinstance(value, tuple | int) else value
        for key, value in parameters.items()
    }
    program.output(program.op(kind, (1, 2, 2, 2), **({"x": x} | parameters)))
    interpreter = Interpreter(program.write(tmp_path / "a.mlpackage"))
    with pytest.raises(ModelFileError, match=message) as caught:
        interpreter.predict({"x": np.zeros((1, 2, 2, 2), np.float32)})
    assert "a.mlpackage" in str(caught.value)
    assert "export it again" in str(caught.value)
