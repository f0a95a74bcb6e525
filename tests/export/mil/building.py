"""Packages written message by message: no converter, and every defect that one may want."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from unet_edge_export.mil.schema import ARRAY_TYPES, COLOR_SPACES, DATA_TYPES, Model
from unet_edge_export.mil.weights import ELEMENTS
from unet_edge_runtime.spec import METADATA_KEY

NUMBERS = {name: number for number, name in DATA_TYPES.items()}
ARRAYS = {name: number for number, name in ARRAY_TYPES.items()}
COLORS = {name: number for number, name in COLOR_SPACES.items()}
NAMES = {element.type: name for name, element in reversed(ELEMENTS.items()) if element.bits >= 8}
BLOB = "@model_path/weights/weight.bin"


class Name(str):
    """The name of a value, where a plain text would be a constant."""


class Program:
    """One function under construction."""

    def __init__(self, model=None, name="main", opset="CoreML8"):
        self.model = model or Model(specificationVersion=9)
        self.function = self.model.mlProgram.functions[name]
        self.function.opset = opset
        self.block = self.function.block_specializations[opset]
        self.description = self.model.description
        self.weights = bytearray(64)
        self.weights[4] = 2
        self.count = 0

    def input(self, name, shape, dtype="fp32", feature=None):
        """An array; `feature` is what the description says if it differs."""
        declare(self.function.inputs.add(), name, dtype, shape)
        array = self.description.input.add(name=name).type.multiArrayType
        array.dataType = ARRAYS[feature or dtype]
        array.shape.extend(side or 1 for side in shape)
        return Name(name)

    def image(self, name, size, color="RGB", dtype="fp32"):
        channels = 3 if color in ("RGB", "BGR") else 1
        declare(self.function.inputs.add(), name, dtype, (1, channels, *size))
        image = self.description.input.add(name=name).type.imageType
        image.height, image.width, image.colorSpace = *size, COLORS[color]
        return Name(name)

    def op(self, kind, shapes, dtypes="fp32", **inputs):
        """An operation; inputs are names, lists of names, or constants. Returns its results' names."""
        many = isinstance(shapes, list)
        lists = {key: value if isinstance(value, list) else [value] for key, value in inputs.items()}
        names = {
            key: [one if isinstance(one, Name) else self.const(one) for one in some] for key, some in lists.items()
        }
        operation = self.block.operations.add(type=kind)
        for key, some in names.items():
            for name in some:
                operation.inputs[key].arguments.add(name=name)
        shapes = shapes if many else [shapes]
        dtypes = dtypes if isinstance(dtypes, list) else [dtypes] * len(shapes)
        made = [self._declare_output(operation, shape, dtype) for shape, dtype in zip(shapes, dtypes, strict=True)]
        return made if many else made[0]

    def const(self, value, dtype=None, in_file=None):
        """A constant: `dtype` names a sub-byte type; large ones go to the weight file."""
        operation = self.block.operations.add(type="const")
        array = value if isinstance(value, str) else np.asarray(value)
        if isinstance(array, np.ndarray):
            array = array.astype({"f8": np.float32, "i8": np.int32}.get(array.dtype.str[1:], array.dtype))
            dtype = dtype or NAMES[array.dtype]
            in_file = array.size >= 10 if in_file is None else in_file
        shape = () if isinstance(value, str) else array.shape
        name = self._declare_output(operation, shape, dtype or "string")
        self._fill(operation.attributes["val"], array, dtype or "string", in_file)
        return name

    def constexpr(self, kind, shapes, dtypes, attributes=(), **inputs):
        """A compressed weight: constants as attributes (iOS 16) or as inputs (iOS 18); (array, dtype) for sub-byte."""
        operation_inputs = {
            key: value if isinstance(value, Name) else self.const(*value) if isinstance(value, tuple) else value
            for key, value in inputs.items()
        }
        made = self.op(kind, shapes, dtypes, **operation_inputs)
        for key, value in dict(attributes).items():
            dtype = "string" if isinstance(value, str) else NAMES[np.asarray(value).dtype]
            self._fill(self.block.operations[-1].attributes[key], value, dtype, np.size(value) >= 10)
        return made

    def output(self, name, dtype="fp32", color=None):
        self.block.outputs.append(name)
        kind = self.description.output.add(name=name).type
        if color:
            kind.imageType.colorSpace = COLORS[color]
        else:
            kind.multiArrayType.dataType = ARRAYS[dtype]
        return self

    def blob(self, content, number):
        """Append raw bytes as a blob; returns its offset."""
        offset = len(self.weights)
        record = np.array([0xDEADBEEF, number], "<u4").tobytes()
        record += np.array([len(content), offset + 64, 0], "<u8").tobytes()
        self.weights += record.ljust(64, b"\0") + content + bytes(-len(content) % 64)
        return offset

    def write(self, path, spec=None):
        if spec is not None:
            self.description.metadata.userDefined[METADATA_KEY] = spec.to_json()
        return write_package(path, self.model, bytes(self.weights))

    def _declare_output(self, operation, shape, dtype):
        self.count += 1
        name = f"v{self.count}"
        declare(operation.outputs.add(), name, dtype, shape)
        return Name(name)

    def _fill(self, proto, value, dtype, in_file):
        if isinstance(value, str):
            set_type(proto.type, "string", ())
            proto.immediateValue.tensor.strings.values.append(value)
            return
        value = np.asarray(value)
        set_type(proto.type, dtype, value.shape)
        if in_file and dtype != "bool":
            offset = self.blob(pack(value, dtype), ELEMENTS[dtype].blob)
            proto.blobFileValue.fileName, proto.blobFileValue.offset = BLOB, offset
        elif dtype in ("fp32", "int32", "bool"):
            field = {"fp32": "floats", "int32": "ints", "bool": "bools"}[dtype]
            getattr(proto.immediateValue.tensor, field).values.extend(value.reshape(-1).tolist())
        else:
            proto.immediateValue.tensor.bytes.values = pack(value, dtype)


def set_type(proto, dtype, shape):
    tensor = proto.tensorType
    tensor.dataType, tensor.rank = NUMBERS[dtype], len(shape)
    for side in shape:
        dimension = tensor.dimensions.add()
        if side is None:
            dimension.unknown.variadic = False
        else:
            dimension.constant.size = side


def declare(proto, name, dtype, shape):
    proto.name = name
    set_type(proto.type, dtype, shape)


def pack(values, dtype):
    """Bytes as a weight file holds them, sub-byte types bit by bit: slow, and another way than the reader's."""
    bits = ELEMENTS[dtype].bits
    if bits >= 8:
        return np.ascontiguousarray(values).astype(ELEMENTS[dtype].type).tobytes()
    unsigned = np.asarray(values).reshape(-1).astype(np.int64) & ((1 << bits) - 1)
    stream = (unsigned[:, None] >> np.arange(bits) & 1).astype(np.uint8).reshape(-1)
    return np.packbits(stream, bitorder="little").tobytes()


def write_package(path, model, weights=b"", manifest=None):
    path = Path(path)
    folder = path / "Data" / "com.apple.CoreML"
    (folder / "weights").mkdir(parents=True, exist_ok=True)
    content = model if isinstance(model, bytes) else model.SerializeToString()
    (folder / "model.mlmodel").write_bytes(content)
    (folder / "weights" / "weight.bin").write_bytes(weights)
    manifest = manifest or {
        "fileFormatVersion": "1.0.0",
        "itemInfoEntries": {"id": {"path": "com.apple.CoreML/model.mlmodel"}},
        "rootModelIdentifier": "id",
    }
    (path / "Manifest.json").write_text(manifest if isinstance(manifest, str) else json.dumps(manifest))
    return path
