"""Reading a package: what stands in it, and what may not."""

from __future__ import annotations

import json
import os
import subprocess
import sys

import numpy as np
import pytest

from unet_edge_export.mil import Package
from unet_edge_export.mil import package as package_module
from unet_edge_export.mil import program as program_module
from unet_edge_export.mil.schema import ARRAY_TYPES, COLOR_SPACES, DATA_TYPES, Model
from unet_edge_export.mil.weights import ELEMENTS, decode, stored_bytes
from unet_edge_runtime.errors import ModelFileError

from .building import BLOB, Program, pack, write_package


class TestSchema:
    def test_every_field_is_coremltools_field(self, ct):
        """Number, name, type, repetition and group of every field, down from Model."""
        from coremltools.proto import Model_pb2

        seen = set()
        _compare(Model.DESCRIPTOR, Model_pb2.Model.DESCRIPTOR, seen)
        assert {"Model", "Program", "Operation", "TensorValue", "ImageSizeRange", "StateType"} <= seen
        assert len(seen) > 40

    def test_every_enumeration_is_coremltools(self, ct):
        from coremltools.proto import FeatureTypes_pb2, MIL_pb2

        theirs = {value.number: value.name for value in MIL_pb2.DataType.DESCRIPTOR.values if value.number}
        for number, name in theirs.items():
            ours = name.replace("BFLOAT", "bf").replace("FLOAT", "fp").lower()
            assert DATA_TYPES[number] == ours
        assert DATA_TYPES.keys() == theirs.keys()
        array = FeatureTypes_pb2.ArrayFeatureType.ArrayDataType
        widths = {"FLOAT16": "fp16", "FLOAT32": "fp32", "DOUBLE": "fp64", "INT8": "int8", "INT32": "int32"}
        assert {number: widths[name] for name, number in array.items() if number} == ARRAY_TYPES
        colors = FeatureTypes_pb2.ImageFeatureType.ColorSpace
        assert {number: name for name, number in colors.items() if number} == COLOR_SPACES

    def test_nothing_of_coremltools_is_imported(self, tiny):
        code = (
            "import sys; sys.modules.update(dict.fromkeys(['coremltools', 'onnx', 'onnxscript', 'onnxruntime']))\n"
            "from unet_edge_export.mil import Interpreter, Package\n"
            f"print(len(Package.open({os.fspath(tiny)!r}).function().operations), Interpreter({os.fspath(tiny)!r}))"
        )
        done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr


def _compare(ours, theirs, seen):
    if ours.full_name in seen:
        return
    seen.add(ours.name)
    assert len(ours.fields) or ours.name in ("StringFeatureType",)
    for field in ours.fields:
        other = theirs.fields_by_number.get(field.number)
        where = f"{ours.name}.{field.name}"
        assert other is not None, where
        assert other.name == field.name, where
        assert other.is_repeated == field.is_repeated, where
        group, their_group = field.containing_oneof, other.containing_oneof
        assert (group and group.name) == (their_group and their_group.name), where
        if other.enum_type is not None:
            assert field.type == field.TYPE_INT32, where
            continue
        assert other.type == field.type, where
        if field.message_type is not None and field.message_type.name not in seen:
            _compare(field.message_type, other.message_type, seen)


class TestReading:
    def test_a_converted_package(self, converted):
        _, spec, path = converted()
        package = Package.open(path)
        assert package.functions == ["main"]
        assert package.default_function == "main"
        assert package.spec_version == 8
        assert package.model_spec == spec
        assert "segmentation" in package.short_description
        assert package.version == ""
        assert package.license
        assert "unet-edge" in package.author
        function = package.function()
        (image,), (logits,) = function.inputs, function.outputs
        assert (image.kind, image.color, image.shape, image.channels) == ("image", "RGB", (64, 96), 3)
        assert not image.is_flexible
        assert (logits.kind, logits.dtype) == ("array", "fp16")
        assert function.results == ("logits",)
        kinds = [operation.type for operation in function.operations]
        assert {"conv", "relu", "max_pool", "conv_transpose", "concat"} <= set(kinds)
        conv = next(operation for operation in function.operations if operation.type == "conv")
        assert conv.outputs[0].shape == (1, 4, 64, 96)
        assert conv.outputs[0].elements == 4 * 64 * 96
        weight = next(each for each in function.operations if each.name == conv.inputs["weight"][0])
        constant = weight.attributes["val"]
        assert constant.in_weight_file
        assert constant.blob[0] == BLOB
        assert constant.stored_bytes == 4 * 3 * 9 * 2
        assert constant.value().shape == (4, 3, 3, 3)

    def test_every_constant_is_what_coremltools_reads(self, ct, converted):
        _, _, path = converted()
        theirs = ct.models.MLModel(str(path), skip_model_load=True).get_spec().mlProgram.functions["main"]
        names = {op.outputs[0].name for op in next(iter(theirs.block_specializations.values())).operations}
        ours = Package.open(path).function().operations
        assert {each.name for each in ours} == names

    @pytest.mark.parametrize("dtype", ["fp16", "fp32", "int8", "uint8", "int16", "uint16", "int32", "uint32"])
    @pytest.mark.parametrize("in_file", [True, False])
    def test_numbers_survive(self, tmp_path, dtype, in_file):
        values = np.random.default_rng(1).integers(0, 100, (3, 5)).astype(ELEMENTS[dtype].type)
        _check_round_trip(tmp_path, values, dtype, in_file)

    @pytest.mark.parametrize("dtype", ["int4", "uint1", "uint2", "uint3", "uint4", "uint6"])
    @pytest.mark.parametrize("count", [1, 2, 3, 5, 7, 8, 9, 21, 64])
    @pytest.mark.parametrize("in_file", [True, False])
    def test_sub_byte_numbers_survive(self, tmp_path, dtype, count, in_file):
        bits = ELEMENTS[dtype].bits
        low = -(1 << (bits - 1)) if dtype == "int4" else 0
        values = np.random.default_rng(count).integers(low, low + (1 << bits), (count,))
        _check_round_trip(tmp_path, values, dtype, in_file)

    def test_sub_byte_blobs_are_those_of_coremltools(self, ct, tmp_path):
        """Apple's own writer packs, our reader unpacks."""
        from coremltools.libmilstoragepython import _BlobStorageWriter

        values = {
            name: np.random.default_rng(7).integers(-8 if name == "int4" else 0, 8 if name == "int4" else 1 << bits, 37)
            for name, bits in [("int4", 4), ("uint1", 1), ("uint2", 2), ("uint3", 3), ("uint4", 4), ("uint6", 6)]
        }
        writer = _BlobStorageWriter(str(tmp_path / "weight.bin"))
        offsets = {
            name: getattr(writer, f"write_{name}_data")(one.astype(ELEMENTS[name].type)) for name, one in values.items()
        }
        del writer
        program = Program()
        program.weights = bytearray((tmp_path / "weight.bin").read_bytes())
        for name, one in values.items():
            program.const(one, name, in_file=True)
            program.block.operations[-1].attributes["val"].blobFileValue.offset = offsets[name]
        program.output(program.input("x", (1,)))
        for operation in Package.open(program.write(tmp_path / "a.mlpackage")).function().operations:
            constant = operation.attributes["val"]
            np.testing.assert_array_equal(constant.value(), values[constant.type.dtype])

    def test_texts_scalars_and_truth(self, tmp_path):
        program = Program()
        for value in ("a text", np.bool_(True), np.int32(-3), np.float32(0.5), np.float16(2), np.array([], np.int32)):
            program.const(value)
        program.output(program.input("x", (1,)))
        operations = Package.open(program.write(tmp_path / "a.mlpackage")).function().operations
        values = [operation.attributes["val"].value() for operation in operations]
        assert values[0] == "a text"
        assert [value.item() for value in values[1:5]] == [True, -3, 0.5, 2]
        assert values[5].shape == (0,)

    def test_several_functions(self, tmp_path):
        model = Model(specificationVersion=9)
        model.description.defaultFunctionName = "b"
        for name, side in (("a", 2), ("b", 3)):
            program = Program(model, name)
            x = program.input("x", (1, side))
            program.output(x)
            entry = model.description.functions.add(name=name)
            entry.input.extend(model.description.input)
            entry.output.extend(model.description.output)
            del model.description.input[:], model.description.output[:]
        package = Package.open(write_package(tmp_path / "a.mlpackage", model))
        assert package.functions == ["b", "a"]
        assert package.function().inputs[0].shape == (1, 3)
        assert package.function("a").inputs[0].shape == (1, 2)
        with pytest.raises(ModelFileError, match="has no function 'c': its functions are 'b', 'a'"):
            package.function("c")

    def test_flexible_inputs(self, tmp_path):
        program = Program()
        program.output(program.input("x", (1, 3, None, None)))
        array = program.description.input[0].type.multiArrayType
        for low, high in ((1, 1), (3, 3), (16, 64), (32, -1)):
            array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
        program.image("y", (4, 6))
        image = program.description.input[1].type.imageType
        for size in ((4, 6), (8, 12)):
            image.enumeratedSizes.sizes.add(height=size[0], width=size[1])
        function = Package.open(program.write(tmp_path / "a.mlpackage")).function()
        array, image = function.inputs
        assert array.is_flexible
        assert array.ranges == ((1, 1), (3, 3), (16, 64), (32, None))
        assert array.accepts((1, 3, 64, 9999))
        assert not array.accepts((1, 3, 65, 64))
        assert not array.accepts((3, 64, 64))
        assert image.choices == ((4, 6), (8, 12))
        assert image.accepts((8, 12))
        assert not image.accepts((4, 12))
        assert function.arguments[0].shape == (1, 3, None, None)
        assert function.arguments[0].elements is None


def _check_round_trip(tmp_path, values, dtype, in_file):
    program = Program()
    program.const(values, dtype, in_file)
    if dtype not in ("fp32", "int32"):
        assert pack(values, dtype) in (bytes(program.weights) if in_file else program.model.SerializeToString())
    program.output(program.input("x", (1,)))
    constant = Package.open(program.write(tmp_path / "a.mlpackage")).function().operations[0].attributes["val"]
    assert constant.in_weight_file == in_file
    assert constant.stored_bytes == stored_bytes(dtype, values.size) == -(-ELEMENTS[dtype].bits * values.size // 8)
    np.testing.assert_array_equal(constant.value(), values)
    raw = np.frombuffer(pack(values, dtype), np.uint8)
    np.testing.assert_array_equal(decode(raw, dtype, values.shape), values)


def read_everything(path):
    for operation in Package.open(path).function().operations:
        for constant in operation.attributes.values():
            constant.value()


def refuse(path, message):
    with pytest.raises(ModelFileError, match=message) as caught:
        read_everything(path)
    text = str(caught.value)
    assert str(path) in text
    assert "\n" not in text
    assert len(text) < 500


MANIFEST = {"rootModelIdentifier": "id", "itemInfoEntries": {"id": {"path": "com.apple.CoreML/model.mlmodel"}}}


class TestManifest:
    @pytest.mark.parametrize(
        "path",
        [
            "../../outside",
            "/etc/hostname",
            "com.apple.CoreML/../../../outside",
            "a\0b",
            "..\\outside",
            "",
            ".",
            "com.apple.CoreML",
            "com.apple.CoreML/none",
            "x" * 5000,
            7,
            None,
            ["a"],
        ],
        ids=repr,
    )
    def test_a_path_outside_or_of_no_file(self, tiny, tmp_path, path):
        (tmp_path / "outside").write_bytes((tiny / "Data/com.apple.CoreML/model.mlmodel").read_bytes())
        manifest = {**MANIFEST, "itemInfoEntries": {"id": {"path": path}}}
        (tiny / "Manifest.json").write_text(json.dumps(manifest))
        refuse(tiny, "leads outside|cannot be opened|is no file|names? a model")

    @pytest.mark.parametrize(
        "text", ["", "[]", "{}", "[" * 100_000, '{"rootModelIdentifier": "id"}', '{"rootModelIdentifier": {}}', "\xff"]
    )
    def test_a_manifest_that_names_nothing(self, tiny, text):
        (tiny / "Manifest.json").write_bytes(text.encode("latin-1"))
        refuse(tiny, "Manifest.json does not name a model")

    def test_links_stay_inside(self, tiny, tmp_path):
        model = tiny / "Data/com.apple.CoreML/model.mlmodel"
        model.rename(tiny / "Data/moved")
        model.symlink_to(tiny / "Data/moved")
        assert Package.open(tiny).functions == ["main"], "a link inside the package is fine"
        (tiny / "Data/moved").rename(tmp_path / "moved")
        model.unlink()
        model.symlink_to(tmp_path / "moved")
        refuse(tiny, "leads outside the package")
        model.unlink()
        model.symlink_to(model)
        refuse(tiny, "cannot be opened|is no file")

    def test_a_pipe_is_not_waited_for(self, tiny):
        model = tiny / "Data/com.apple.CoreML/model.mlmodel"
        model.unlink()
        os.mkfifo(model)
        refuse(tiny, "is no file")

    def test_a_package_in_a_linked_folder(self, tiny, tmp_path):
        (tmp_path / "link.mlpackage").symlink_to(tiny)
        assert Package.open(tmp_path / "link.mlpackage").functions == ["main"]

    def test_no_package(self, tmp_path):
        refuse(tmp_path / "none.mlpackage", "no such Core ML package")
        (tmp_path / "file.mlpackage").touch()
        refuse(tmp_path / "file.mlpackage", "no such Core ML package")
        (tmp_path / "empty.mlpackage").mkdir()
        refuse(tmp_path / "empty.mlpackage", "'Manifest.json' cannot be opened")

    def test_sizes_are_bounded_before_reading(self, tiny, monkeypatch):
        monkeypatch.setattr(package_module, "MAX_PROGRAM", 100)
        refuse(tiny, "is larger than")


class TestProgram:
    def test_an_older_kind_of_model(self, tmp_path):
        # Field 500 is a neural network, of the time before ML Programs.
        refuse(
            write_package(tmp_path / "a.mlpackage", b"\xa2\x1f\x00"), "holds no ML Program .* convert it as mlprogram"
        )
        refuse(write_package(tmp_path / "b.mlpackage", b""), "holds no ML Program")
        refuse(write_package(tmp_path / "c.mlpackage", b"garbage" * 9), "is not a Core ML model")

    def _refuse(self, tmp_path, program, message):
        refuse(program.write(tmp_path / "a.mlpackage"), message)

    def test_no_function(self, tmp_path):
        model = Model()
        model.mlProgram.version = 1
        refuse(write_package(tmp_path / "a.mlpackage", model), "has no function 'main': its functions are none")

    def test_an_operation_set_without_a_block(self, tmp_path):
        program = Program()
        program.function.opset = "CoreML9"
        self._refuse(tmp_path, program, "has no block for its operation set 'CoreML9'")

    def test_names(self, tmp_path):
        program = Program()
        x = program.input("x", (1,))
        program.output(program.op("relu", (1,), x=x))
        operation = program.block.operations[0]
        operation.outputs[0].name = "x"
        self._refuse(tmp_path, program, "value 'x' is defined twice")
        operation.outputs[0].name = ""
        self._refuse(tmp_path, program, "value '' is defined twice, or has no name")
        operation.outputs[0].name = "y"
        self._refuse(tmp_path, program, "the result 'v1' is never computed")
        del program.block.outputs[:]
        self._refuse(tmp_path, program, "there is no result")
        operation.inputs["x"].arguments[0].name = "y\n" * 100
        self._refuse(tmp_path, program, "is used before it is computed")

    def test_types(self, tmp_path):
        program = Program()
        program.output(program.input("x", (1,)))
        tensor = program.function.inputs[0].type.tensorType
        tensor.dataType = 99
        self._refuse(tmp_path, program, "value 'x' has the unknown element type 99")
        tensor.dataType, tensor.rank = 11, 2
        self._refuse(tmp_path, program, "value 'x' has 1 sides and rank 2")
        tensor.rank = 1
        tensor.dimensions[0].constant.size = 1 << 62
        self._refuse(tmp_path, program, "a value has an impossible side")
        tensor.dimensions[0].unknown.variadic = True
        self._refuse(tmp_path, program, "a value has an impossible side")

    def test_features(self, tmp_path):
        program = Program()
        program.output(program.input("x", (1,)))
        feature = program.description.input[0].type
        feature.multiArrayType.dataType = 5
        self._refuse(tmp_path, program, "unknown element type 5")
        feature.multiArrayType.dataType = 65568
        feature.multiArrayType.shape[0] = -4
        self._refuse(tmp_path, program, "impossible shape")
        feature.imageType.colorSpace = 21
        self._refuse(tmp_path, program, "unknown colour space 21")
        feature.Clear()
        program.description.input.add(name="x")
        self._refuse(tmp_path, program, "two inputs or two outputs have the same name")

    def test_sizes(self, tmp_path, monkeypatch):
        program = Program()
        program.output(program.op("relu", (1,), x=program.input("x", (1,))))
        monkeypatch.setattr(program_module, "MAX_OPERATIONS", 0)
        self._refuse(tmp_path, program, "has 1 operations")
        monkeypatch.undo()
        monkeypatch.setattr(program_module, "MAX_BINDINGS", 0)
        self._refuse(tmp_path, program, "has too many inputs or outputs")


class TestWeights:
    @pytest.fixture
    def program(self):
        program = Program()
        program.const(np.arange(20, dtype=np.float32), in_file=True)
        program.output(program.input("x", (1,)))
        return program

    def value(self, program):
        return program.block.operations[0].attributes["val"]

    def record(self, program, dtype, position):
        return np.frombuffer(program.weights, dtype, 1, 64 + position)

    @pytest.mark.parametrize(
        ("position", "dtype", "value", "message"),
        [
            (0, "<u4", 0xDEADBEEE, "there is no blob at 64"),
            (4, "<u4", 1, "does not hold fp32"),
            (8, "<u8", 79, "has 79 bytes, and the program declares 80"),
            (8, "<u8", 1 << 63, "bytes, and the program declares 80"),
            (16, "<u8", 0, "are not inside the file"),
            (16, "<u8", 127, "are not inside the file"),
            (16, "<u8", 192, "are not inside the file"),
            (16, "<u8", (1 << 64) - 64, "are not inside the file"),
        ],
    )
    def test_a_wrong_record(self, tmp_path, program, position, dtype, value, message):
        self.record(program, dtype, position)[0] = value
        refuse(program.write(tmp_path / "a.mlpackage"), message)

    @pytest.mark.parametrize("offset", [0, 1, 65, 128, 192, 1 << 40, (1 << 64) - 1])
    def test_a_wrong_offset(self, tmp_path, program, offset):
        self.value(program).blobFileValue.offset = offset
        refuse(program.write(tmp_path / "a.mlpackage"), "is not inside the file|there is no blob")

    @pytest.mark.parametrize(
        "name",
        ["weights/weight.bin", "@model_path/../../../x", "@model_path/", "@model_path//etc/hostname", "@model_path"],
    )
    def test_a_wrong_file(self, tmp_path, program, name):
        self.value(program).blobFileValue.fileName = name
        refuse(
            program.write(tmp_path / "a.mlpackage"), "outside the package|no path inside|cannot be opened|is no file"
        )

    @pytest.mark.parametrize("size", [0, 63, 64, 100, 130])
    def test_a_truncated_file(self, tmp_path, program, size):
        del program.weights[size:]
        refuse(program.write(tmp_path / "a.mlpackage"), "too short|not inside the file")

    def test_a_missing_file(self, tmp_path, program):
        path = program.write(tmp_path / "a.mlpackage")
        (path / "Data/com.apple.CoreML/weights/weight.bin").unlink()
        refuse(path, "weight.bin' cannot be opened")

    def test_another_version(self, tmp_path, program):
        program.weights[4] = 1
        refuse(program.write(tmp_path / "a.mlpackage"), "version 1, and only 2 is known")

    @pytest.mark.parametrize("dtype", [13, 40, 41])
    def test_types_that_are_not_read(self, tmp_path, program, dtype):
        self.value(program).type.tensorType.dataType = dtype
        refuse(program.write(tmp_path / "a.mlpackage"), "cannot be read")

    def test_immediate_values(self, tmp_path):
        program = Program()
        program.const(np.arange(3, dtype=np.int32))
        program.output(program.input("x", (1,)))
        value = program.block.operations[0].attributes["val"]
        value.immediateValue.tensor.ints.values.append(4)
        refuse(program.write(tmp_path / "a.mlpackage"), "holds 4 numbers and declares 3")
        value.immediateValue.tensor.floats.values.extend([1, 2, 3])
        refuse(program.write(tmp_path / "a.mlpackage"), "type int32 is stored as floats")
        value.immediateValue.tensor.bytes.values = b"12345"
        refuse(program.write(tmp_path / "a.mlpackage"), "has 5 bytes and declares 12")
        value.type.tensorType.dataType = 21
        value.immediateValue.tensor.ints.values.extend([1, 2, 300])
        refuse(program.write(tmp_path / "a.mlpackage"), "type int8 holds numbers that do not fit it")
        value.immediateValue.Clear()
        refuse(program.write(tmp_path / "a.mlpackage"), "is stored as nothing")
        value.type.tensorType.dataType = 2
        refuse(program.write(tmp_path / "a.mlpackage"), "holds 0 texts and declares 3")
