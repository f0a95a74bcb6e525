"""Packages built message by message, so that each shows one thing and no converter is needed."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from unet_edge_export.mil import Package
from unet_edge_export.mil.schema import ARRAY_TYPES, COLOR_SPACES, DATA_TYPES, Model

NUMBER = {name: number for number, name in DATA_TYPES.items()}
ARRAY_NUMBER = {name: number for number, name in ARRAY_TYPES.items()}
COLOR_NUMBER = {name: number for number, name in COLOR_SPACES.items()}
IMMEDIATE = {"i": ("int32", "ints"), "b": ("bool", "bools"), "f": ("fp32", "floats")}


class Program:
    """One function under construction; every method returns the name of the value it makes."""

    def __init__(self, model, name="main"):
        self.model, self.name = model, name
        self.function = model.mlProgram.functions[name]
        self.function.opset = "CoreML7"
        self.block = self.function.block_specializations["CoreML7"]
        self.description = model.description
        self.made = 0

    def input(self, name="x", dtype="fp16", shape=(1, 16, 64, 64), choices=(), ranges=()):
        self._declare(self.function.inputs.add(), name, dtype, shape)
        feature = self.description.input.add(name=name).type.multiArrayType
        feature.dataType = ARRAY_NUMBER[dtype]
        feature.shape.extend(side or 1 for side in shape)
        for choice in choices:
            feature.enumeratedShapes.shapes.add(shape=choice)
        for low, high in ranges:
            feature.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
        return name

    def picture(self, name="x", size=(64, 64)):
        self._declare(self.function.inputs.add(), name, "fp32", (1, 3, *size))
        feature = self.description.input.add(name=name).type.imageType
        feature.height, feature.width = size
        feature.colorSpace = COLOR_NUMBER["RGB"]
        return name

    def output(self, name, dtype="fp16", picture=False):
        self.block.outputs.append(name)
        kind = self.description.output.add(name=name).type
        if picture:
            kind.imageType.colorSpace = COLOR_NUMBER["GRAYSCALE"]
        else:
            kind.multiArrayType.dataType = ARRAY_NUMBER[dtype]
        return self

    def op(self, kind, dtype, shape, name=None, /, **inputs):
        """An operation; strings are names of values, lists of strings several, everything else a constant."""
        self.made += 1
        name = name or f"{kind}_{self.made}"
        bound = {key: self._names(f"{name}_{key}", value) for key, value in inputs.items()}
        operation = self.block.operations.add(type=kind)
        self._declare(operation.outputs.add(), name, dtype, shape)
        for key, values in bound.items():
            for value in values:
                operation.inputs[key].arguments.add(name=value)
        return name

    def const(self, value, name):
        operation = self.block.operations.add(type="const")
        constant = operation.attributes["val"]
        if isinstance(value, str):
            dtype, shape = "string", ()
            constant.immediateValue.tensor.strings.values.append(value)
        else:
            array = np.asarray(value)
            dtype, field = IMMEDIATE[array.dtype.kind]
            shape = array.shape
            getattr(constant.immediateValue.tensor, field).values.extend(array.reshape(-1).tolist())
        self._type(constant.type, dtype, shape)
        self._declare(operation.outputs.add(), name, dtype, shape)
        return name

    def weight(self, shape, dtype="fp16", name=None):
        """A constant in the weight file; the lint never reads the numbers, so there is no such file."""
        self.made += 1
        name = name or f"weight_{self.made}"
        operation = self.block.operations.add(type="const")
        constant = operation.attributes["val"]
        self._type(constant.type, dtype, shape)
        constant.blobFileValue.fileName = "@model_path/weights/weight.bin"
        constant.blobFileValue.offset = 64 * self.made
        self._declare(operation.outputs.add(), name, dtype, shape)
        return name

    def conv(self, x, shape, kernel=(3, 3), inputs=16, kind="conv", weight=None, **settings):
        """A convolution (or a transposed one) with fp16 weights."""
        ends = (shape[1], inputs) if kind == "conv" else (inputs, shape[1])
        weight = weight or self.weight((*ends, *kernel))
        settings = {"strides": [1, 1], "dilations": [1, 1], "pad_type": "same", **settings}
        return self.op(kind, "fp16", shape, x=x, weight=weight, **settings)

    def _names(self, name, value):
        if isinstance(value, list) and value and all(isinstance(each, str) for each in value):
            return value
        known = {each.name for each in self.function.inputs}
        known.update(output.name for operation in self.block.operations for output in operation.outputs)
        return [value if isinstance(value, str) and value in known else self.const(value, name)]

    def _declare(self, proto, name, dtype, shape):
        proto.name = name
        self._type(proto.type, dtype, shape)

    def _type(self, proto, dtype, shape):
        tensor = proto.tensorType
        tensor.dataType, tensor.rank = NUMBER[dtype], len(shape)
        for side in shape:
            dimension = tensor.dimensions.add()
            if side is None:
                dimension.unknown.variadic = False
            else:
                dimension.constant.size = side


def save(model, path: Path) -> Path:
    """Write a package around a model message."""
    folder = path / "Data" / "com.apple.CoreML"
    folder.mkdir(parents=True)
    (folder / "model.mlmodel").write_bytes(model.SerializeToString())
    entry = {"path": "com.apple.CoreML/model.mlmodel", "name": "model.mlmodel", "author": "test"}
    manifest = {"fileFormatVersion": "1.0.0", "itemInfoEntries": {"root": entry}, "rootModelIdentifier": "root"}
    (path / "Manifest.json").write_text(json.dumps(manifest))
    return path


@pytest.fixture
def build(tmp_path):
    """A function (fill) -> Package, where fill(program) adds inputs, operations and outputs."""

    def make(*fills, name="m.mlpackage"):
        model = Model(specificationVersion=8)
        for index, fill in enumerate(fills):
            program = Program(model, "main" if index == 0 else f"main{index}")
            if len(fills) > 1:
                program.description = model.description.functions.add(name=program.name)
            fill(program)
        return Package.open(save(model, tmp_path / name))

    return make


@pytest.fixture(scope="session")
def converted(tmp_path_factory, make_model, make_spec):
    """A function (up, **fields of the spec) -> path of a real package of a small network; each converted once."""
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    from unet_edge_export.to_coreml import write_coreml

    made = {}

    def convert(up="transposed", **fields):
        key = (up, *sorted(fields.items()))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("lint") / "small.mlpackage"
            spec = make_spec(**{"input_size": (64, 64), "precision": "fp16", **fields})
            write_coreml(make_model(up=up), spec, made[key])
        return made[key]

    return convert
