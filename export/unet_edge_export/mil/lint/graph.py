"""One function of a package as the rules look at it: computing operations, their settings, their weights."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from unet_edge_export.mil.features import Feature
from unet_edge_export.mil.program import Function, Operation
from unet_edge_export.mil.values import Constant, Shape, TensorType
from unet_edge_export.mil.weights import ELEMENTS

from .chips import Chip

__all__ = ["FLOATS", "Graph", "Node", "Weight", "shape_text", "size_bytes"]

FLOATS = ("fp16", "fp32", "fp64", "bf16")

_MOST_FORMS = 8
_MOST_NUMBERS = 64
_NOTHING = TensorType("", "unknown")


def shape_text(shape: Shape) -> str:
    """A shape for people, such as 1x3x320x480; ? for a side that is only known when the program runs."""
    return "x".join("?" if side is None else str(side) for side in shape) or "scalar"


def size_bytes(tensor: TensorType) -> int | None:
    """Bytes of a value, or None where a side is open."""
    if tensor.elements is None or tensor.dtype not in ELEMENTS:
        return None
    return ELEMENTS[tensor.dtype].bits * tensor.elements // 8


@dataclass(frozen=True)
class Weight:
    """A constant that an operation computes with.

    Attributes:
        type: as the operation sees it, unpacked.
        forms: the `constexpr_*` operations that unpack it, the first one first; none for plain numbers.
        stored: bytes in the package.
        constant: the numbers themselves, where nothing has to unpack them.
    """

    type: TensorType
    forms: tuple[str, ...]
    stored: int
    constant: Constant | None = None

    @property
    def name(self) -> str:
        """Of the value."""
        return self.type.name

    def bytes_on(self, chip: Chip) -> int:
        """Bytes that a chip reads: packed only where it unpacks while reading, fp16 or as declared elsewhere."""
        if set(self.forms) <= chip.generation.streams:
            return self.stored
        return size_bytes(self.type) or 0


@dataclass(frozen=True)
class Node:
    """An operation that computes.

    Attributes:
        operation: as the package has it.
        tensors: parameter -> computed values.
        weights: parameter -> constants of numbers.
        settings: parameter -> the other constants.
    """

    operation: Operation
    tensors: Mapping[str, tuple[TensorType, ...]]
    weights: Mapping[str, Weight]
    settings: Mapping[str, Constant]

    @property
    def kind(self) -> str:
        """Type, such as "conv"."""
        return self.operation.type

    @property
    def name(self) -> str:
        """Name of the first value it computes."""
        return self.operation.name

    @property
    def outputs(self) -> tuple[TensorType, ...]:
        """What it computes."""
        return self.operation.outputs

    @property
    def output(self) -> TensorType:
        """The first of them."""
        return self.outputs[0] if self.outputs else _NOTHING

    @property
    def all_tensors(self) -> list[TensorType]:
        """Every computed value it takes."""
        return [tensor for many in self.tensors.values() for tensor in many]

    @property
    def kernel(self) -> tuple[int, int]:
        """(height, width) of a convolution's kernel; the height of a one-dimensional one is 1."""
        sides = [side or 1 for side in self.type_of("weight").shape[2:]]
        return (sides[-2] if len(sides) > 1 else 1, sides[-1]) if sides else (1, 1)

    def tensor(self, parameter: str) -> TensorType:
        """A computed value it takes; one of unknown type where there is none."""
        return next(iter(self.tensors.get(parameter, ())), _NOTHING)

    def type_of(self, parameter: str) -> TensorType:
        """Type of an input, computed or constant."""
        return self.weights[parameter].type if parameter in self.weights else self.tensor(parameter)

    def setting(self, parameter: str, default: str) -> str:
        """A text that is set, or the default.

        Raises:
            ModelFileError: the constant is damaged.
        """
        value = self.settings[parameter].value() if parameter in self.settings else default
        return value if isinstance(value, str) else default

    def numbers(self, parameter: str, default: tuple[int, ...] = ()) -> tuple[int, ...]:
        """Whole numbers or truth values that are set, or the default where none are.

        Raises:
            ModelFileError: the constant is damaged.
        """
        if parameter not in self.settings or (self.settings[parameter].type.elements or 0) > _MOST_NUMBERS:
            return default
        values: Any = np.asarray(self.settings[parameter].value()).reshape(-1)
        return tuple(int(value) for value in values) or default if values.dtype.kind in "iub" else default


class Graph:
    """One function, constants resolved.

    Args:
        function: as the package has it.

    Attributes:
        name: of the function.
        inputs: as the description declares them.
        outputs: likewise.
        arguments: the program's own input values.
        nodes: the operations that compute, in order.
        values: every computed value by name.
        weights: every constant of numbers that a node takes, by name.
        unpackers: the `constexpr_*` operations, by the name of each value they make.
    """

    def __init__(self, function: Function) -> None:
        self.name = function.name
        self.inputs: tuple[Feature, ...] = function.inputs
        self.outputs: tuple[Feature, ...] = function.outputs
        self.arguments = function.arguments
        self.values = {value.name: value for value in function.arguments}
        self.weights: dict[str, Weight] = {}
        self.unpackers: dict[str, Operation] = {}
        self._constants: dict[str, Weight] = {}
        self._producers: dict[str, Node] = {}
        self.nodes = tuple(self._read(function.operations))

    def of(self, *kinds: str) -> Iterator[Node]:
        """The nodes of some kinds, in order."""
        return (node for node in self.nodes if node.kind in kinds)

    def producer(self, name: str) -> Node | None:
        """The node that computes a value; None for inputs and constants."""
        return self._producers.get(name)

    def _read(self, operations: Iterable[Operation]) -> Iterator[Node]:
        for operation in operations:
            if operation.type == "const":
                self._add_constant(operation)
            elif operation.type.startswith("constexpr_"):
                self._add_unpacker(operation)
            else:
                node = self._node(operation)
                self.values.update((output.name, output) for output in operation.outputs)
                self._producers.update((output.name, node) for output in operation.outputs)
                yield node

    def _add_constant(self, operation: Operation) -> None:
        value = operation.attributes.get("val")
        if value is not None and operation.outputs:
            self._constants[operation.name] = Weight(operation.outputs[0], (), value.stored_bytes, value)

    def _add_unpacker(self, operation: Operation) -> None:
        values = [value for many in operation.inputs.values() for value in many]
        parts = [part for part in map(self._constant, (*values, *operation.attributes.values())) if part is not None]
        forms = dict.fromkeys((*(form for part in parts for form in part.forms), operation.type))
        stored = sum(part.stored for part in parts)
        for output in operation.outputs:
            self.unpackers[output.name] = operation
            # A bound, because a hostile file may chain as many as it likes.
            self._constants[output.name] = Weight(output, tuple(forms)[-_MOST_FORMS:], stored)

    def _node(self, operation: Operation) -> Node:
        tensors: dict[str, tuple[TensorType, ...]] = {}
        weights: dict[str, Weight] = {}
        settings: dict[str, Constant] = {}
        for parameter, values in operation.inputs.items():
            tensors[parameter] = tuple(
                self.values[value] for value in values if isinstance(value, str) and value in self.values
            )
            for constant in filter(None, map(self._constant, values)):
                if constant.constant is None or (constant.type.shape and constant.type.dtype in FLOATS):
                    weights[parameter] = constant
                    self.weights[constant.name or f"{operation.name}.{parameter}"] = constant
                else:
                    settings[parameter] = constant.constant
        return Node(operation, tensors, weights, settings)

    def _constant(self, value: str | Constant) -> Weight | None:
        if isinstance(value, str):
            return self._constants.get(value)
        return Weight(value.type, (), value.stored_bytes, value)
