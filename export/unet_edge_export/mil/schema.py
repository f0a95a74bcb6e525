"""The protobuf messages of a Core ML package, built from a table: no coremltools, no generated code.

The field numbers are those of coremltools' `Model.proto`, `FeatureTypes.proto` and `MIL.proto`; a test compares
every one with them. Only what an ML Program consists of is here: fields that are not in the table are skipped
when a file is read. Enumerations are plain integers, so that unknown ones reach the reader instead of vanishing.
"""

from __future__ import annotations

from typing import Any

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory  # type: ignore[import-untyped,unused-ignore]

__all__ = ["ARRAY_TYPES", "COLOR_SPACES", "DATA_TYPES", "PACKAGE", "Model", "message"]

PACKAGE = "unet_edge.coreml"

# A message a paragraph, a field a word: number, name, type; "*" repeated, "%" a map from strings, "?" in a oneof.
_TABLE = """
Model 1:specificationVersion:int32 2:description:ModelDescription 502:mlProgram:Program?Type

ModelDescription 1:input:*FeatureDescription 10:output:*FeatureDescription 13:state:*FeatureDescription
  20:functions:*FunctionDescription 21:defaultFunctionName:string 100:metadata:Metadata
FunctionDescription 1:name:string 2:input:*FeatureDescription 3:output:*FeatureDescription 6:state:*FeatureDescription
FeatureDescription 1:name:string 2:shortDescription:string 3:type:FeatureType
Metadata 1:shortDescription:string 2:versionString:string 3:author:string 4:license:string 100:userDefined:%string

FeatureType 4:imageType:ImageFeatureType?Type 5:multiArrayType:ArrayFeatureType?Type 1000:isOptional:bool
SizeRange 1:lowerBound:uint64 2:upperBound:int64
ImageFeatureType 1:width:int64 2:height:int64 3:colorSpace:int32
  21:enumeratedSizes:EnumeratedImageSizes?SizeFlexibility 31:imageSizeRange:ImageSizeRange?SizeFlexibility
ImageSize 1:width:uint64 2:height:uint64
EnumeratedImageSizes 1:sizes:*ImageSize
ImageSizeRange 1:widthRange:SizeRange 2:heightRange:SizeRange
ArrayFeatureType 1:shape:*int64 2:dataType:int32
  21:enumeratedShapes:EnumeratedShapes?ShapeFlexibility 31:shapeRange:ShapeRange?ShapeFlexibility
Shape 1:shape:*int64
EnumeratedShapes 1:shapes:*Shape
ShapeRange 1:sizeRanges:*SizeRange

Program 1:version:int64 2:functions:%Function 3:docString:string 4:attributes:%Value
Function 1:inputs:*NamedValueType 2:opset:string 3:block_specializations:%Block 4:attributes:%Value
Block 1:inputs:*NamedValueType 2:outputs:*string 3:operations:*Operation 4:attributes:%Value
Operation 1:type:string 2:inputs:%Argument 3:outputs:*NamedValueType 4:blocks:*Block 5:attributes:%Value
Argument 1:arguments:*Binding
Binding 1:name:string?binding 2:value:Value?binding
NamedValueType 1:name:string 2:type:ValueType

ValueType 1:tensorType:TensorType?type 2:listType:ListType?type 3:tupleType:TupleType?type
  4:dictionaryType:DictionaryType?type 5:stateType:StateType?type
TensorType 1:dataType:int32 2:rank:int64 3:dimensions:*Dimension
ListType 1:type:ValueType 2:length:Dimension
TupleType 1:types:*ValueType
DictionaryType 1:keyType:ValueType 2:valueType:ValueType
StateType 1:wrappedType:ValueType
Dimension 1:constant:ConstantDimension?dimension 2:unknown:UnknownDimension?dimension
ConstantDimension 1:size:uint64
UnknownDimension 1:variadic:bool

Value 2:type:ValueType 3:immediateValue:ImmediateValue?value 5:blobFileValue:BlobFileValue?value
ImmediateValue 1:tensor:TensorValue?value
BlobFileValue 1:fileName:string 2:offset:uint64
TensorValue 1:floats:RepeatedFloats?value 2:ints:RepeatedInts?value 3:bools:RepeatedBools?value
  4:strings:RepeatedStrings?value 5:longInts:RepeatedLongInts?value 6:doubles:RepeatedDoubles?value
  7:bytes:RepeatedBytes?value
RepeatedFloats 1:values:*float
RepeatedDoubles 1:values:*double
RepeatedInts 1:values:*int32
RepeatedLongInts 1:values:*int64
RepeatedBools 1:values:*bool
RepeatedStrings 1:values:*string
RepeatedBytes 1:values:bytes
"""

# The names are those that MIL programs are printed with.
DATA_TYPES = {
    1: "bool",
    2: "string",
    10: "fp16",
    11: "fp32",
    12: "fp64",
    13: "bf16",
    21: "int8",
    22: "int16",
    23: "int32",
    24: "int64",
    25: "int4",
    31: "uint8",
    32: "uint16",
    33: "uint32",
    34: "uint64",
    35: "uint4",
    36: "uint2",
    37: "uint1",
    38: "uint6",
    39: "uint3",
    40: "fp8e4m3fn",
    41: "fp8e5m2",
}
"""MIL's `DataType` -> name."""

ARRAY_TYPES = {65552: "fp16", 65568: "fp32", 65600: "fp64", 131080: "int8", 131104: "int32"}
"""`ArrayFeatureType.ArrayDataType` -> name."""

COLOR_SPACES = {10: "GRAYSCALE", 20: "RGB", 30: "BGR", 40: "GRAYSCALE_FLOAT16"}
"""`ImageFeatureType.ColorSpace` -> name."""

_FIELD = descriptor_pb2.FieldDescriptorProto
_SCALARS = {
    name: getattr(_FIELD, f"TYPE_{name.upper()}")
    for name in ("bool", "bytes", "double", "float", "int32", "int64", "string", "uint64")
}


def message(name: str) -> Any:
    """The class of the message `name`, such as "Model" or "Operation"."""
    return message_factory.GetMessageClass(_POOL.FindMessageTypeByName(f"{PACKAGE}.{name}"))


def _build() -> Any:
    file = descriptor_pb2.FileDescriptorProto(name="unet_edge/coreml.proto", package=PACKAGE, syntax="proto3")
    current: Any = None
    for line in filter(str.strip, _TABLE.splitlines()):
        words = line.split()
        if not line.startswith(" "):
            current = file.message_type.add(name=words.pop(0))
        for word in words:
            _add_field(current, *word.split(":"))
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return pool


def _add_field(owner: Any, number: str, name: str, kind: str) -> None:
    kind, _, group = kind.partition("?")
    if kind.startswith("%"):
        _add_map(owner, int(number), name, kind[1:])
        return
    label = _FIELD.LABEL_REPEATED if kind.startswith("*") else _FIELD.LABEL_OPTIONAL
    field = owner.field.add(name=name, number=int(number), label=label, **_type(kind.lstrip("*")))
    if group:
        groups = [each.name for each in owner.oneof_decl]
        if group not in groups:
            owner.oneof_decl.add(name=group)
            groups.append(group)
        field.oneof_index = groups.index(group)


def _add_map(owner: Any, number: int, name: str, kind: str) -> None:
    """A map is a repeated message with a key and a value (protobuf's language guide, "Backwards compatibility")."""
    # protoc's name for it, which the pool insists on.
    entry = owner.nested_type.add(name="".join(part[:1].upper() + part[1:] for part in name.split("_")) + "Entry")
    entry.options.map_entry = True
    entry.field.add(name="key", number=1, label=_FIELD.LABEL_OPTIONAL, type=_SCALARS["string"])
    entry.field.add(name="value", number=2, label=_FIELD.LABEL_OPTIONAL, **_type(kind))
    kind = f"{owner.name}.{entry.name}"
    owner.field.add(name=name, number=number, label=_FIELD.LABEL_REPEATED, **_type(kind))


def _type(kind: str) -> dict[str, Any]:
    if kind in _SCALARS:
        return {"type": _SCALARS[kind]}
    return {"type": _FIELD.TYPE_MESSAGE, "type_name": f".{PACKAGE}.{kind}"}


_POOL = _build()
Model: Any = message("Model")
"""The message in a package's `model.mlmodel`."""
