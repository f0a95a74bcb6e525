"""The ML Program of a package as plain data: functions, operations, types, constants.

A program is a list of operations in single-assignment form: each names its results, and its inputs are constants
or results of operations before it. The text form and the operations are documented in coremltools' MIL reference.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .features import Feature
from .schema import DATA_TYPES
from .values import Constant, TensorType, shown
from .weights import WeightFile, damaged

__all__ = ["Function", "Operation", "read_function"]

MAX_OPERATIONS = 100_000
MAX_BINDINGS = 1_000_000
MAX_RANK = 8  # a tensor has at most 5 dimensions, the look-up table of a compressed one two more
MAX_SIDE = 1 << 31


@dataclass(frozen=True)
class Operation:
    """One operation.

    Attributes:
        type: such as "conv".
        outputs: its results.
        inputs: parameter -> values: names of results before it, or constants; more than one for lists only.
        attributes: further constants: the value of a "const", the parameters of iOS 16's compressed weights.
        blocks: how many nested blocks it has (control flow).
    """

    type: str
    outputs: tuple[TensorType, ...]
    inputs: dict[str, tuple[str | Constant, ...]]
    attributes: dict[str, Constant]
    blocks: int = 0

    @property
    def name(self) -> str:
        """Name of the first result."""
        return self.outputs[0].name if self.outputs else ""


@dataclass(frozen=True)
class Function:
    """One function of a program.

    Attributes:
        name: of the function.
        opset: the operation set it is written in, such as "CoreML7".
        inputs: as the model's description declares them.
        outputs: likewise.
        arguments: the program's own input values.
        operations: in order of execution, constants included.
        results: names of the values that are returned.
    """

    name: str
    opset: str
    inputs: tuple[Feature, ...]
    outputs: tuple[Feature, ...]
    arguments: tuple[TensorType, ...]
    operations: tuple[Operation, ...]
    results: tuple[str, ...]


@dataclass(frozen=True)
class _Source:
    """Where a program comes from: for messages, and for its weights."""

    path: Path
    weight_file: Callable[[str], WeightFile]


def read_function(
    proto: Any,
    name: str,
    features: tuple[tuple[Feature, ...], tuple[Feature, ...]],
    path: Path,
    weight_file: Callable[[str], WeightFile],
) -> Function:
    """Read a `Function` message and check that it is in single-assignment form.

    Args:
        proto: the message.
        name: of the function.
        features: inputs and outputs of the description.
        path: the package, for messages.
        weight_file: opens a weight file by the name that the program uses.

    Raises:
        ModelFileError: the program is inconsistent, or beyond every sensible size.
    """
    source = _Source(path, weight_file)
    if proto.opset not in proto.block_specializations:
        raise damaged(path, f"function {shown(name)} has no block for its operation set {shown(proto.opset)}")
    block = proto.block_specializations[proto.opset]
    if len(block.operations) > MAX_OPERATIONS or len(block.outputs) > 64 or len(proto.inputs) > 64:
        raise damaged(path, f"function {shown(name)} has {len(block.operations)} operations")
    arguments = tuple(_named_type(each, source) for each in proto.inputs)
    operations = tuple(_operations(block.operations, source))
    _check_names(arguments, operations, tuple(block.outputs), path)
    return Function(name, proto.opset, *features, arguments, operations, tuple(block.outputs))


def _operations(protos: Any, source: _Source) -> Iterator[Operation]:
    bindings = 0
    for proto in protos:
        bindings += sum(len(argument.arguments) for argument in proto.inputs.values())
        if bindings > MAX_BINDINGS or len(proto.outputs) > 64:
            raise damaged(source.path, f"operation {shown(proto.type)} has too many inputs or outputs")
        yield Operation(
            type=proto.type,
            outputs=tuple(_named_type(each, source) for each in proto.outputs),
            inputs={
                key: tuple(_binding(each, source) for each in argument.arguments)
                for key, argument in proto.inputs.items()
            },
            attributes={key: _constant(value, source) for key, value in proto.attributes.items()},
            blocks=len(proto.blocks),
        )


def _binding(proto: Any, source: _Source) -> str | Constant:
    return proto.name if proto.WhichOneof("binding") == "name" else _constant(proto.value, source)


def _constant(proto: Any, source: _Source) -> Constant:
    return Constant(_type("", proto.type, source), proto, source.path, source.weight_file)


def _named_type(proto: Any, source: _Source) -> TensorType:
    return _type(proto.name, proto.type, source)


def _type(name: str, proto: Any, source: _Source) -> TensorType:
    kind = proto.WhichOneof("type")
    if kind != "tensorType":
        return TensorType(name, (kind or "unknown").removesuffix("Type"))
    tensor = proto.tensorType
    if tensor.dataType not in DATA_TYPES:
        raise damaged(source.path, f"value {shown(name)} has the unknown element type {tensor.dataType}")
    if tensor.rank != len(tensor.dimensions) or tensor.rank > MAX_RANK:
        raise damaged(source.path, f"value {shown(name)} has {len(tensor.dimensions)} sides and rank {tensor.rank}")
    return TensorType(name, DATA_TYPES[tensor.dataType], tuple(_side(each, source) for each in tensor.dimensions))


def _side(proto: Any, source: _Source) -> int | None:
    if proto.WhichOneof("dimension") == "unknown" and not proto.unknown.variadic:
        return None
    size = int(proto.constant.size)
    if proto.WhichOneof("dimension") != "constant" or size >= MAX_SIDE:
        raise damaged(source.path, f"a value has an impossible side ({size})")
    return size


def _check_names(
    arguments: tuple[TensorType, ...], operations: tuple[Operation, ...], results: tuple[str, ...], path: Path
) -> None:
    """Every name is defined once, and before it is used."""
    known: set[str] = set()
    for values, inputs in [(arguments, {}), *((each.outputs, each.inputs) for each in operations)]:
        for value in (one for many in inputs.values() for one in many):
            if isinstance(value, str) and value not in known:
                raise damaged(path, f"value {shown(value)} is used before it is computed")
        for output in values:
            if output.name in known or not output.name:
                raise damaged(path, f"value {shown(output.name)} is defined twice, or has no name")
            known.add(output.name)
    missing = [name for name in results if name not in known]
    if missing or not results:
        raise damaged(path, f"the result {shown(missing[0])} is never computed" if missing else "there is no result")
