"""Each rule with a program that breaks it and one that does not, differing in one thing."""

from __future__ import annotations

import dataclasses
import itertools

import pytest

from unet_edge_export.mil.lint import CHIPS, RULES, SEVERITIES, lint
from unet_edge_export.mil.lint import tensor_rules as tensors

MAP = (1, 16, 64, 64)


def plain(program):
    """A block as U-Nets have it: nothing to complain about on any chip."""
    x = program.input()
    y = program.op("relu", "fp16", MAP, x=program.conv(x, MAP))
    y = program.op("max_pool", "fp16", (1, 16, 32, 32), x=y, kernel_sizes=[2, 2], strides=[2, 2], pad_type="valid")
    up = program.conv(y, MAP, (2, 2), kind="conv_transpose", strides=[2, 2], pad_type="valid")
    y = program.op("concat", "fp16", (1, 32, 64, 64), values=[x, up], axis=1, interleave=False)
    y = program.conv(y, (1, 1, 64, 64), (1, 1), inputs=32, pad_type="valid")
    program.output(y)


def conv(**changes):
    shape = changes.pop("shape", MAP)

    def fill(program):
        program.output(program.conv(program.input(), shape, **changes))

    return fill


def transposed(**changes):
    settings = {"shape": (1, 16, 128, 128), "kernel": (2, 2), "strides": [2, 2], "pad_type": "valid", **changes}

    def fill(program):
        program.output(program.conv(program.input(), kind="conv_transpose", **settings))

    return fill


def one(kind, result="fp16", shape=MAP, entry=None, **settings):
    """A program of one operation on the input."""

    def fill(program):
        x = program.input(**(entry or {}))
        program.output(program.op(kind, result, shape, x=x, **settings), result)

    return fill


def entry(**changes):
    def fill(program):
        program.output(program.op("relu", "fp16", (1, 16, None, None), x=program.input(**changes)))

    return fill


def scaled(before):
    """A picture, scaled before or after it becomes fp16."""

    def fill(program):
        shape, x = (1, 3, 64, 64), program.picture()
        if before:
            x = program.op("mul", "fp32", shape, x=x, y=1 / 255)
        x = program.op("cast", "fp16", shape, x=x, dtype="fp16")
        program.output(program.op("relu", "fp16", shape, x=x))

    return fill


def joined(axis=1, dtype="fp16"):
    def fill(program):
        values = [program.input("a"), program.input("b", dtype)]
        program.output(program.op("concat", "fp16", (1, 32, 64, 64), values=values, axis=axis, interleave=False))

    return fill


def argmaxed(kind):
    """An argmax behind an operation."""

    def fill(program):
        y = program.op(kind, "fp16", MAP, x=program.input())
        program.output(program.op("reduce_argmax", "int32", (1, 64, 64), x=y, axis=1, keep_dims=False), "int32")

    return fill


def pictured(dtype, shape):
    def fill(program):
        program.output(program.op("cast", dtype, shape, x=program.input(), dtype=dtype), picture=True)

    return fill


def logits(classes):
    return one("relu", shape=(1, classes, 64, 64), entry={"shape": (1, classes, 64, 64)})


def unpacked(kind, **sources):
    """A convolution whose weight a constexpr operation makes."""

    def fill(program):
        data = {key: program.weight((16, 16, 3, 3), dtype) for key, dtype in sources.items()}
        weight = program.op(kind, "fp16", (16, 16, 3, 3), "packed", **data)
        program.output(program.conv(program.input(), MAP, weight=weight))

    return fill


def palette(scale_behind):
    """A palette whose dense values are scaled, or whose table is (which is how int8 tables come)."""

    def fill(program):
        shape, indices = (16, 16, 3, 3), program.weight((16, 16, 3, 3), "uint4")
        scale, table = program.weight((16, 1, 1, 1)), program.weight((1, 1, 1, 1, 16, 1))
        if scale_behind:
            dense = program.op("constexpr_lut_to_dense", "fp16", shape, indices=indices, lut=table)
            dense = program.op("constexpr_blockwise_shift_scale", "fp16", shape, "packed", data=dense, scale=scale)
        else:
            table = program.op("constexpr_blockwise_shift_scale", "fp16", (1, 1, 1, 1, 16, 1), data=table, scale=scale)
            dense = program.op("constexpr_lut_to_dense", "fp16", shape, "packed", indices=indices, lut=table)
        program.output(program.conv(program.input(), MAP, weight=dense))

    return fill


BIG = (1, 16, 1024, 1024)  # enough arithmetic for a dispatch
LUT = {"indices": "uint4", "lut": "fp16"}
AFFINE = {"quantized_data": "int8", "scale": "fp16"}

# rule -> (breaks it, does not, the operation that is named)
CASES = {
    "OP": (one("scatter_nd"), one("relu"), "scatter_nd_1"),
    "STATE": (one("lstm"), one("relu"), "lstm_1"),
    "CAST": (one("cast", "int32", dtype="int32"), one("cast", "fp32", dtype="fp32"), "cast_1"),
    "RESIZE": (one("upsample_bilinear", shape=(1, 16, 128, 128)), transposed(), "upsample_bilinear_1"),
    "UPSCALE": (
        one("upsample_nearest_neighbor", shape=(1, 16, 256, 256)),
        one("upsample_nearest_neighbor", shape=(1, 16, 128, 128)),
        "upsample_nearest_neighbor_1",
    ),
    "TCONV": (
        transposed(kernel=(3, 3), pad_type="custom", pad=[0, 1, 0, 1]),
        transposed(kernel=(4, 4), pad_type="custom", pad=[1, 1, 1, 1]),
        "conv_transpose_2",
    ),
    "TCONV16": (
        transposed(kernel=(16, 16), strides=[16, 16], shape=(1, 16, 1024, 1024)),
        transposed(kernel=(8, 8), strides=[8, 8], shape=(1, 16, 512, 512)),
        "conv_transpose_2",
    ),
    "KERNEL": (conv(kernel=(3, 15)), conv(kernel=(15, 3)), "conv_2"),
    "STRIDE": (conv(strides=[5, 5], shape=(1, 16, 13, 13)), conv(strides=[4, 4], shape=(1, 16, 16, 16)), "conv_2"),
    "POOL": (
        one("max_pool", shape=(1, 16, 16, 16), kernel_sizes=[4, 4], strides=[4, 4], pad_type="valid"),
        one("max_pool", shape=(1, 16, 32, 32), kernel_sizes=[4, 4], strides=[2, 2], pad_type="same"),
        "max_pool_1",
    ),
    "DILATION": (conv(dilations=[2, 2]), conv(), "conv_2"),
    "PAD": (
        one("pad", shape=(1, 16, 66, 66), pad=[0, 0, 0, 0, 1, 1, 1, 1], mode="reflect"),
        one("pad", shape=(1, 16, 66, 66), pad=[0, 0, 0, 0, 1, 1, 1, 1], mode="constant"),
        "pad_1",
    ),
    "CONCAT": (joined(axis=2), joined(axis=-3), "concat_1"),
    "SLICE": (
        one("slice_by_size", shape=(1, 16, 64, 32), begin=[0, 0, 0, 8], size=[1, 16, 64, 32]),
        one("slice_by_size", shape=(1, 16, 32, 64), begin=[0, 0, 8, 0], size=[1, 16, 32, 64]),
        "slice_by_size_1",
    ),
    "ARGMAX": (argmaxed("relu"), one("relu"), "reduce_argmax_2"),
    "SOFTMAX": (argmaxed("softmax"), one("softmax", axis=1), "softmax_1"),
    "FP32": (
        one("relu", "fp32", entry={"dtype": "fp32"}),
        one("cast", "fp16", entry={"dtype": "fp32"}, dtype="fp16"),
        "relu_1",
    ),
    "INPUT-SCALE": (scaled(before=True), scaled(before=False), "mul_1"),
    "RANK": (one("reshape", shape=(16, 64, 64)), one("relu"), "reshape_1"),
    "DIM": (
        one("relu", shape=(1, 1, 2, 16416), entry={"shape": (1, 1, 2, 16416)}),
        one("relu", shape=(1, 1, 2, 16384), entry={"shape": (1, 1, 2, 16384)}),
        "relu_1",
    ),
    "SIZE": (
        one("relu", shape=(1, 1, 864, 1536), entry={"shape": (1, 1, 864, 1536)}),
        one("relu", shape=(1, 1, 832, 1536), entry={"shape": (1, 1, 832, 1536)}),
        "relu_1",
    ),
    "ALIGN-W": (conv(shape=(1, 16, 64, 60)), conv(shape=(1, 16, 60, 64)), "conv_2"),
    "ALIGN-C": (conv(shape=(1, 24, 64, 64)), conv(shape=(1, 32, 64, 64)), "conv_2"),
    "WEIGHT": (
        conv(shape=(1, 4096, 64, 64), inputs=4096, kernel=(3, 3)),
        conv(shape=(1, 2048, 64, 64), inputs=4096, kernel=(3, 3)),
        "weight_1",
    ),
    "COMPRESS": (
        unpacked("constexpr_affine_dequantize", **AFFINE),
        unpacked("constexpr_lut_to_dense", **LUT),
        "packed",
    ),
    "PCS": (palette(scale_behind=True), palette(scale_behind=False), "packed"),
    "TINY": (conv(), conv(shape=BIG), "main"),
    "FLEX-RANGE": (
        entry(shape=(1, 16, None, None), ranges=((1, 1), (16, 16), (32, 128), (32, 128))),
        entry(ranges=((1, 1), (16, 16), (64, 64), (64, 64))),
        "x",
    ),
    "FLEX-ENUM": (
        entry(shape=(1, 16, None, None), choices=((1, 16, 64, 64), (1, 16, 96, 96))),
        entry(choices=((1, 16, 64, 64),)),
        "x",
    ),
    "IMAGE-OUT": (pictured("int32", (1, 1, 64, 64)), pictured("fp32", (1, 1, 64, 64)), "cast_1"),
    "BIG-OUT": (logits(2), logits(1), "relu_1"),
}
NEEDS_VALUES = {"RANGE"}


def named(report, rule):
    return [finding for finding in report.findings if finding.rule.id == rule]


def test_every_rule_has_its_two_packages():
    assert set(CASES) | NEEDS_VALUES == set(RULES)


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_finds_what_breaks_it(build, rule):
    breaks, _, where = CASES[rule]
    (finding,) = named(lint(build(breaks), "m1"), rule)
    assert finding.operation == where
    assert finding.severity == RULES[rule].severity
    assert finding.function == "main"
    assert finding.message


@pytest.mark.parametrize("rule", CASES)
def test_a_rule_leaves_the_rest_alone(build, rule):
    _, keeps, _ = CASES[rule]
    assert named(lint(build(keeps), "m1"), rule) == []


@pytest.mark.parametrize("chip", CHIPS)
def test_a_plain_block_is_clean_on_every_chip(build, chip):
    found = {finding.rule.id for finding in lint(build(plain), chip).findings}
    assert found <= {"TINY"}


@pytest.mark.parametrize("rule", RULES.values(), ids=list(RULES))
def test_the_table_documents_each_rule(rule):
    assert rule.severity in SEVERITIES
    assert rule.summary.endswith(".")
    assert rule.remedy
    assert rule.source


@pytest.mark.parametrize(
    ("rule", "last"),
    [
        ("CAST", "m1"),
        ("RESIZE", "m1"),
        ("PAD", "m1"),
        ("SLICE", "m3"),
        ("DIM", "m3"),
        ("KERNEL", "m1"),
        ("COMPRESS", "m1"),
    ],
)
def test_some_rules_end_with_a_generation(build, rule, last):
    package = build(CASES[rule][0])
    macs = ["m1", "m2", "m3", "m4", "m5"]
    assert [chip for chip in macs if named(lint(package, chip), rule)] == macs[: macs.index(last) + 1]


def test_operations_that_came_later(build):
    package = build(one("topk"))
    assert "from the M2 on" in named(lint(package, "m1"), "OP")[0].message
    assert named(lint(package, "a15"), "OP") == []


def test_more_than_five_axes_are_an_error(build):
    (finding,) = named(lint(build(one("reshape", shape=(1, 1, 16, 1, 64, 64)))), "RANK")
    assert finding.severity == "error"


def test_labels_need_not_be_rank_four(build):
    assert named(lint(build(argmaxed("relu"))), "RANK") == []


def test_concatenating_two_types(build):
    (finding,) = named(lint(build(joined(dtype="fp32"))), "CONCAT")
    assert finding.message == "joins fp16 and fp32"


@pytest.mark.parametrize(
    ("settings", "breaks"),
    [
        ({"kernel": (3, 3), "pad_type": "same"}, True),
        ({"kernel": (4, 4), "pad_type": "same"}, False),
        ({"output_shape": [1, 16, 128, 128]}, False),
        ({"output_shape": [1, 16, 129, 129], "shape": (1, 16, 129, 129)}, True),
    ],
)
def test_ways_to_pad_a_transposed_convolution(build, settings, breaks):
    assert bool(named(lint(build(transposed(**settings))), "TCONV")) == breaks


def test_scaling_a_picture_is_one_finding_not_two(build):
    report = lint(build(scaled(before=True)))
    assert named(report, "INPUT-SCALE")
    assert named(report, "FP32") == []


def test_a_later_multiplication_in_fp32_is_an_error(build):
    def fill(program):
        x = program.op("relu", "fp32", (1, 3, 64, 64), x=program.picture())
        program.output(program.op("mul", "fp32", (1, 3, 64, 64), x=x, y=0.5), "fp32")

    assert [finding.operation for finding in named(lint(build(fill)), "FP32")] == ["relu_1", "mul_2"]


def test_all_weights_together(build, monkeypatch):
    monkeypatch.setattr(tensors, "LARGEST_PROGRAM", 4000)
    (finding,) = named(lint(build(conv())), "WEIGHT")
    assert finding.kind == "program"


def test_a_packed_weight_counts_as_the_chip_reads_it(build):
    package = build(unpacked("constexpr_affine_dequantize", **AFFINE))
    dense, packed = 16 * 16 * 9 * 2, 16 * 16 * 9 * 3  # this "scale" is as large as the weight
    assert lint(package, "m1").functions[0].cost.weights == dense
    assert lint(package, "m2").functions[0].cost.weights == packed


@pytest.mark.parametrize(
    ("bounds", "severity", "words"),
    [
        ((-3.0, 50.0), None, ""),
        ((-70000.0, 1.0), "error", "overflow"),
        ((0.0, float("inf")), "error", "overflow"),
        ((0.0, float("nan")), "error", "overflow"),
        ((-200.0, 0.0), "warn", "coarse"),
        ((-1e-5, 1e-6), "warn", "coarse"),
        ((0.0, 0.0), None, ""),
        ((0.0, 40000.0), "error", "products"),
    ],
)
def test_measured_values(build, bounds, severity, words):
    report = lint(build(one("linear", weight=[1.0])), "m1", {"main": {"linear_1": bounds}})
    found = named(report, "RANGE")
    assert [finding.severity for finding in found] == ([severity] if severity else [])
    assert all(words in finding.message for finding in found)


def test_without_measured_values_there_is_nothing_about_them(build):
    assert named(lint(build(one("linear", weight=[1.0]))), "RANGE") == []


def test_all_functions_are_checked(build):
    report = lint(build(plain, CASES["DILATION"][0], CASES["OP"][0]))
    assert [function.name for function in report.functions] == ["main", "main1", "main2"]
    assert [finding.function for finding in named(report, "DILATION")] == ["main1"]
    assert [finding.function for finding in named(report, "OP")] == ["main2"]


def test_errors_come_first(build):
    report = lint(build(CASES["RESIZE"][0], CASES["OP"][0]))
    order = [SEVERITIES.index(finding.severity) for finding in report.findings]
    assert order == sorted(order)
    assert report.counts["error"] == 1
    assert report.fails("error")


def test_what_fails(build):
    report = lint(build(CASES["RESIZE"][0]))
    assert not report.fails("error")
    assert report.fails("warn")
    assert not lint(build(plain, name="plain.mlpackage")).fails("warn")


def test_the_limits_only_widen():
    """What lints clean for the oldest chip lints clean for all later ones."""
    generations = [CHIPS[name].generation for name in ("m1", "m2", "m3", "m4", "m5")]
    for older, newer in itertools.pairwise(generations):
        for field in dataclasses.fields(older):
            if field.name not in ("number", "measured"):
                before, after = getattr(older, field.name), getattr(newer, field.name)
                assert before <= after, field.name
