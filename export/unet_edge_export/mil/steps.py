"""A function prepared for execution: kernels chosen, constants decoded, the end of every value's life known."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from unet_edge_runtime.errors import ModelFileError

from .call import Kernel
from .constants import COMPILE_TIME, as_tensor, constants_of
from .operations import EXACT, OPERATIONS
from .package import Package
from .program import Function, Operation
from .values import Constant, TensorType, shown

__all__ = ["FLOATS", "RUN_TIME_TYPES", "Step", "prepare"]

FLOATS = ("fp16", "fp32", "fp64")
RUN_TIME_TYPES = (*FLOATS, "bool", "int8", "int16", "int32", "int64", "uint8", "uint16", "uint32")
"""Element types that a value may have while the program runs."""


@dataclass(frozen=True)
class Step:
    """One operation, prepared.

    Attributes:
        operation: of the program.
        kernel: what computes it.
        inputs: parameter -> keys of its values: names, or numbers of constants that stand in the operation.
        exact: whether its results are values of its inputs, so that nothing is to be rounded.
        last: names of values that nothing needs after it.
    """

    operation: Operation
    kernel: Kernel
    inputs: dict[str, list[str | int]]
    exact: bool
    last: tuple[str, ...]


def prepare(package: Package, function: Function) -> tuple[list[Step], dict[str | int, Any]]:
    """Prepare a function.

    Returns:
        What is to be executed, in order; and the constants that it uses: key -> tensor, text, or list of texts.

    Raises:
        ModelFileError: there are operations or types that are not known here (all are named), or a constant is
            damaged.
    """
    _check_known(package, function)
    decoded = constants_of(package, function.operations)
    running = [operation for operation in function.operations if operation.type not in COMPILE_TIME]
    last_use = {name: index for index, each in enumerate(running) for name in _names(each)}
    keep = decoded.keys() | set(function.results)
    constants: dict[str | int, Any] = {}
    for name in dict.fromkeys([*last_use, *function.results]):
        if name in decoded:
            constants[name] = as_tensor(decoded[name])
    types = _types(function)
    steps = []
    for index, operation in enumerate(running):
        touched = dict.fromkeys([*_names(operation), *(output.name for output in operation.outputs)])
        last = tuple(name for name in touched if last_use.get(name, index) == index and name not in keep)
        exact = operation.type in EXACT and _is_of_one_type(operation, types)
        steps.append(Step(operation, OPERATIONS[operation.type], _keys(operation, constants), exact, last))
    return steps, constants


def _check_known(package: Package, function: Function) -> None:
    known = OPERATIONS.keys() | COMPILE_TIME
    unknown = {shown(each.type)[1:-1] for each in function.operations if each.type not in known or each.blocks}
    running = [each for each in function.operations if each.type in OPERATIONS]
    values = [*function.arguments, *(output for each in running for output in each.outputs)]
    unknown |= {f"values of type {value.dtype}" for value in values if value.dtype not in RUN_TIME_TYPES}
    if unknown:
        raise ModelFileError(
            f"{package.path}: the reference interpreter does not know {', '.join(sorted(unknown)[:40])}: "
            "run the package on a Mac"
        )


def _types(function: Function) -> dict[str, TensorType]:
    outputs = (output for operation in function.operations for output in operation.outputs)
    return {value.name: value for value in (*function.arguments, *outputs)}


def _names(operation: Operation) -> Iterator[str]:
    for bound in operation.inputs.values():
        for value in bound:
            if isinstance(value, str):
                yield value


def _is_of_one_type(operation: Operation, types: dict[str, TensorType]) -> bool:
    bound = (value for values in operation.inputs.values() for value in values)
    found = {value.type.dtype if isinstance(value, Constant) else types[value].dtype for value in bound}
    return {dtype for dtype in found if dtype in FLOATS} <= {operation.outputs[0].dtype}


def _keys(operation: Operation, constants: dict[str | int, Any]) -> dict[str, list[str | int]]:
    """Names as they are; constants that stand in the operation are added under a number of their own."""
    keys: dict[str, list[str | int]] = {}
    for parameter, bound in operation.inputs.items():
        keys[parameter] = []
        for value in bound:
            key: str | int = value if isinstance(value, str) else len(constants)
            if isinstance(value, Constant):
                constants[key] = as_tensor(value.value())
            keys[parameter].append(key)
    return keys
