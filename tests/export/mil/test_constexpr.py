"""Compressed weights: bit for bit what coremltools' own loader makes of them, and nothing of hostile ones."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest

from tests.export.conftest import lively_model
from unet_edge.checkpoint import class_infos
from unet_edge_export.mil import Package
from unet_edge_export.mil.constants import constants_of
from unet_edge_export.mil.constexpr import CONSTEXPR, expand
from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.spec import ModelSpec

from .building import Program, pack

SMALL = {"weight_threshold": 64}


def palette(**fields):
    return "palettize_weights", "OpPalettizerConfig", {"mode": "uniform", **fields}


def linear(mode="linear_symmetric", **fields):
    return "linear_quantize_weights", "OpLinearQuantizerConfig", {"mode": mode, **fields}


PRUNE = ("prune_weights", "OpMagnitudePrunerConfig", {"target_sparsity": 0.5})
IOS_16 = {
    **{f"palette{bits}": [palette(nbits=bits)] for bits in (8, 6, 4, 2, 1)},
    "int8": [linear()],
    "int8 asymmetric": [linear("linear")],
    "uint8": [linear("linear", dtype="uint8")],
    "int8 per tensor": [linear("linear", granularity="per_tensor")],
    "sparse": [PRUNE],
}
IOS_18 = {
    **IOS_16,
    "palette3": [palette(nbits=3)],
    "palette4, grouped": [palette(nbits=4, granularity="per_grouped_channel", group_size=2)],
    "int4, blocks": [linear(dtype="int4", granularity="per_block", block_size=2)],
    "int8, blocks, asymmetric": [linear("linear", granularity="per_block", block_size=2)],
    "uint4": [linear("linear", dtype="uint4")],
    "sparse int8": [PRUNE, linear()],
    "sparse palette4": [PRUNE, palette(nbits=4)],
    "palette4 of int8": [palette(nbits=4), linear(granularity="per_tensor")],
}
CASES = [("macOS14", name) for name in IOS_16] + [("macOS15", name) for name in IOS_18]


@pytest.fixture(scope="module")
def uncompressed(ct, tmp_path_factory):
    """A function (target) -> the same small network for that system, converted once each."""
    from unet_edge_export.to_coreml import PackageOptions, write_coreml

    made = {}

    def convert(target):
        if target not in made:
            path = tmp_path_factory.mktemp(target) / "net.mlpackage"
            fields = {"channels": 3, "outputs": 2, "multiple": 2, "input_size": (16, 16), "precision": "fp16"}
            spec = ModelSpec(classes=class_infos([0, 1]), **fields)
            write_coreml(lively_model(depth=1), spec, path, PackageOptions(target))
            made[target] = ct.models.MLModel(str(path), skip_model_load=True)
        return made[target]

    return convert


def compressed(ct, model, steps):
    from coremltools.optimize import coreml

    for index, (function, config, fields) in enumerate(steps):
        settings = coreml.OptimizationConfig(global_config=getattr(coreml, config)(**SMALL, **fields))
        joint = {"joint_compression": True} if index else {}
        with contextlib.redirect_stderr(io.StringIO()):
            model = getattr(coreml, function)(model, settings, **joint)
    return model


def as_coremltools_reads(ct, path):
    """Name of a constant's first result -> its results, by coremltools' loader."""
    from coremltools.converters.mil.frontend.milproto.load import load

    spec = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
    weights = str(path / "Data" / "com.apple.CoreML" / "weights")
    program = load(spec, specification_version=spec.specificationVersion, file_weights_dir=weights)
    found = {}
    for operation in program.functions["main"].operations:
        if operation.op_type == "const":
            values = operation.outputs[0].val
        elif not operation.op_type.startswith("constexpr"):
            continue
        else:
            try:
                values = operation.materialized_val_inference()
            except AttributeError:
                # coremltools 9 cannot where the look-up table is itself compressed.
                table = operation.lut.op.materialized_val_inference()
                values = operation.decompress(operation.indices.val, table, None)
        found[operation.outputs[0].name] = values if isinstance(values, tuple) else (values,)
    return found


@pytest.mark.parametrize(("target", "name"), CASES, ids=[f"{name} for {target}" for target, name in CASES])
def test_constants_are_those_of_coremltools_bit_for_bit(ct, uncompressed, tmp_path, target, name):
    path = tmp_path / "a.mlpackage"
    compressed(ct, uncompressed(target), IOS_18[name]).save(str(path))
    package = Package.open(path)
    operations = package.function().operations
    assert any(operation.type.startswith("constexpr") for operation in operations)
    ours, theirs = constants_of(package, operations), as_coremltools_reads(ct, path)
    count = 0
    for operation in operations:
        for output, expected in zip(operation.outputs, theirs.get(operation.name, ()), strict=False):
            got, expected = np.asarray(ours[output.name]), np.asarray(expected)
            assert got.shape == expected.shape, output
            assert got.tobytes() == expected.astype(got.dtype).tobytes(), output
            count += 1
    assert count == len(ours) > 40


class TestAgainstTheDefinitions:
    """iOS 18's forms at odd shapes, by the functions that coremltools' operations are defined with."""

    @pytest.fixture
    def operations(self, ct):
        from coremltools.converters.mil.mil.ops.defs.iOS18 import compression

        return compression

    def equal(self, kind, values, expected):
        expected = expected if isinstance(expected, tuple) else (expected,)
        results = expand(kind, values, [each.shape for each in expected])
        for got, wanted in zip(results, expected, strict=True):
            assert got.tobytes() == wanted.astype(got.dtype).tobytes()

    @pytest.mark.parametrize("dtype", [np.float16, np.float32])
    @pytest.mark.parametrize("blocks", [(1, 1, 1, 1), (6, 1, 1, 1), (3, 2, 1, 1), (6, 4, 3, 3), (2, 1, 1, 3)])
    @pytest.mark.parametrize("offset", [None, np.int8, np.float16])
    def test_blockwise(self, operations, dtype, blocks, offset):
        generator = np.random.default_rng(0)
        data = generator.integers(-128, 128, (6, 4, 3, 3)).astype(np.int8)
        values = {"data": data, "scale": generator.normal(size=blocks).astype(dtype)}
        if offset is not None:
            values["offset"] = generator.integers(-128, 128, blocks).astype(offset)
        kind = "constexpr_blockwise_shift_scale"
        values.setdefault("offset", None)
        self.equal(kind, values, operations.constexpr_blockwise_shift_scale.decompress(**values))
        mask = generator.integers(0, 2, data.shape).astype(np.uint8)
        sparse = {"data_mask": mask, "nonzero_data": data[mask != 0], "scale": values["scale"]}
        sparse["offset"] = values["offset"]
        expected = operations.constexpr_sparse_blockwise_shift_scale.decompress(**sparse)
        self.equal("constexpr_sparse_blockwise_shift_scale", sparse, expected)

    @pytest.mark.parametrize("groups", [(1, 1, 1), (6, 1, 1), (2, 4, 1), (3, 2, 5), (1, 4, 5)])
    @pytest.mark.parametrize(("length", "axis"), [(1, None), (2, 0), (3, 1), (4, -1)])
    @pytest.mark.parametrize("dtype", [np.float16, np.int8])
    def test_palettes(self, operations, groups, length, axis, dtype):
        generator = np.random.default_rng(1)
        indices = generator.integers(0, 8, (6, 4, 5)).astype(np.uint8)
        table = generator.integers(-99, 99, (*groups, 8, length)).astype(dtype)
        values = {"indices": indices, "lut": table}
        expected = operations.constexpr_lut_to_dense.decompress(indices, table, axis)
        if axis is not None:
            values["vector_axis"] = np.int32(axis)
        self.equal("constexpr_lut_to_dense", values, expected)
        mask = generator.integers(0, 2, indices.shape).astype(np.uint8)
        sparse = {"indices_mask": mask, "indices_nonzero_data": indices[mask != 0], "lut": table}
        expected = operations.constexpr_lut_to_sparse.decompress(**sparse, vector_axis=axis)
        if axis is not None:
            sparse["vector_axis"] = np.int32(axis)
        self.equal("constexpr_lut_to_sparse", sparse, expected)

    def test_sparse(self, operations):
        generator = np.random.default_rng(2)
        mask = generator.integers(0, 2, (3, 5, 7)).astype(np.uint8)
        data = generator.normal(size=int(mask.sum())).astype(np.float16)
        expected = operations.constexpr_sparse_to_dense.decompress(data, mask)
        self.equal("constexpr_sparse_to_dense", {"nonzero_data": data, "mask": mask}, expected)

    def test_cast(self):
        values = np.array([[1.5, -2, 65504, 6e-8]], np.float16)
        parameters = {"source_val": values, "output_dtype": "fp32"}
        self.equal("constexpr_cast", parameters, values.astype(np.float32))


def test_all_forms_are_known():
    assert {
        "constexpr_affine_dequantize",
        "constexpr_blockwise_shift_scale",
        "constexpr_cast",
        "constexpr_lut_to_dense",
        "constexpr_lut_to_sparse",
        "constexpr_sparse_blockwise_shift_scale",
        "constexpr_sparse_to_dense",
    } == CONSTEXPR


class TestHostile:
    def refuse(self, tmp_path, program, message):
        program.output(program.input("x", (1,)))
        package = Package.open(program.write(tmp_path / "a.mlpackage"))
        with pytest.raises(ModelFileError, match=message) as caught:
            constants_of(package, package.function().operations)
        assert str(tmp_path) in str(caught.value)

    @pytest.mark.parametrize(
        ("change", "message"),
        [
            ({"indices": np.zeros(2, np.uint8)}, "too few or too many bits"),
            ({"indices": np.zeros(3, np.int8)}, "too few or too many bits"),
            ({"lut": np.zeros(5, np.float16)}, "its palette has 5 entries"),
            ({"lut": np.zeros(0, np.float16)}, "its palette has 0 entries"),
            ({"shape": np.array([1, 6], np.uint32)}, "declared shape"),
            ({"lut": "a text"}, "does not expand"),
            ({"lut": None}, "it lacks 'lut'"),
        ],
    )
    def test_packed_palettes(self, tmp_path, change, message):
        values = {"indices": np.zeros(3, np.uint8), "lut": np.zeros(16, np.float16)}
        values = {**values, "shape": np.array([2, 3], np.uint32), **change}
        values = {key: value for key, value in values.items() if value is not None}
        program = Program()
        program.constexpr("constexpr_lut_to_dense", (2, 3), "fp16", attributes=values)
        self.refuse(tmp_path, program, message)

    @pytest.mark.parametrize(
        ("indices", "table", "axis", "message"),
        [
            ((2, 3), (1, 1, 4, 1), None, "an index lies outside its palette"),
            ((2, 3), (1, 1, 1, 8, 1), None, "indices' rank and two sides more"),
            ((2, 3), (2, 2, 8, 1), None, "do not divide"),
            ((2, 3), (0, 1, 8, 1), None, "do not divide|impossible|has the shape"),
            ((2, 3), (1, 1, 8, 2), 0, "declared shape"),
            ((2, 3), (1, 1, 8, 2), None, "does not expand"),
        ],
    )
    def test_palettes(self, tmp_path, indices, table, axis, message):
        program = Program()
        given = {"indices": (np.full(indices, 7), "uint3"), "lut": np.zeros(table, np.float16)}
        if axis is not None:
            given["vector_axis"] = np.int32(axis)
        program.constexpr("constexpr_lut_to_dense", (2, 3), "fp16", **given)
        self.refuse(tmp_path, program, message)

    def test_a_mask_that_selects_another_number(self, tmp_path):
        program = Program()
        mask = (np.ones((2, 3)), "uint1")
        program.constexpr("constexpr_sparse_to_dense", (2, 3), "fp16", mask=mask, nonzero_data=np.zeros(5, np.float16))
        self.refuse(tmp_path, program, "does not select as many values")

    def test_another_type_than_declared(self, tmp_path):
        program = Program()
        source = np.zeros(3, np.float16)
        program.constexpr("constexpr_cast", (3,), "fp16", source_val=source, output_dtype="fp32")
        self.refuse(tmp_path, program, "is not of its declared type")

    def test_what_is_computed_is_no_constant(self, tmp_path):
        program = Program()
        x = program.op("relu", (3,), "fp16", x=program.input("y", (3,), "fp16"))
        program.constexpr("constexpr_cast", (3,), "fp32", source_val=x, output_dtype="fp32")
        self.refuse(tmp_path, program, "is not constant")

    def test_a_small_file_does_not_make_a_large_weight(self, tmp_path):
        """One bit of index and a vector of 8192: a hundred thousand times the file."""
        program = Program()
        shape = (1 << 16, 1 << 13)
        program.constexpr(
            "constexpr_lut_to_dense",
            shape,
            "fp16",
            indices=(np.zeros((1 << 16, 1), np.uint8), "uint1"),
            lut=np.zeros((1, 1, 2, 1 << 13), np.float16),
            vector_axis=np.int32(1),
        )
        self.refuse(tmp_path, program, "expand to 536.* numbers, far more than it holds")

    def test_packing_of_the_tests_is_what_it_says(self):
        assert pack(np.array([1, 2, 3]), "uint3") == bytes([0b11010001, 0])
