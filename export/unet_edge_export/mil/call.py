"""What a kernel sees of an operation: its values, typed and bounded, and the shape it has to produce."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
from torch import Tensor

from .program import Operation
from .values import TensorType

__all__ = ["MAX_ELEMENTS", "Call", "Kernel", "broadcast", "rank_of"]

MAX_ELEMENTS = 1 << 30  # of all values that live at once: 4 GiB; the 31 M network takes 2 % of it at 512x512
_SCRATCH_FACTOR = 16
_SCRATCH_FREE = 1 << 20
_MAX_PARAMETER = 1 << 24


class Call:
    """One operation at run time.

    Kernels read parameters only through it, so a hostile one (a stride of zero, a pad of a billion) is met here, and
    call `expect` before they compute, so that nothing larger than declared is ever allocated.

    Args:
        operation: what is executed.
        values: parameter -> its values: tensors, texts, or lists of texts.
    """

    def __init__(self, operation: Operation, values: dict[str, list[Any]]) -> None:
        self.operation, self._values = operation, values

    @property
    def output(self) -> TensorType:
        """The declared type of the first result."""
        return self.operation.outputs[0]

    def has(self, name: str) -> bool:
        """Whether a parameter is given."""
        return bool(self._values.get(name))

    def tensor(self, name: str = "x") -> Tensor:
        """A tensor; KeyError where it is missing, ValueError where it is a text or several."""
        found = self.tensors(name)
        if len(found) > 1:
            raise ValueError(f"its parameter {name} is {len(found)} tensors")
        return found[0]

    def tensors(self, name: str) -> list[Tensor]:
        """All tensors of a parameter that takes several; errors as `tensor`."""
        values = self._values[name]
        if not values or not all(isinstance(value, Tensor) for value in values):
            raise ValueError(f"its parameter {name} is no tensor")
        return values

    def optional(self, name: str) -> Tensor | None:
        """A tensor, or None where it is not given."""
        return self.tensor(name) if self.has(name) else None

    def integers(
        self, name: str, default: Sequence[int] | None = None, low: int = -_MAX_PARAMETER, count: int | None = None
    ) -> list[int]:
        """Whole numbers from `low` to 16 million; ValueError for others, or where there are not `count`."""
        if not self.has(name) and default is not None:
            return list(default)
        tensor = self.tensor(name)
        if tensor.numel() > 64 or tensor.is_floating_point():
            raise ValueError(f"its parameter {name} is no short list of whole numbers")
        values = [int(value) for value in tensor.reshape(-1).tolist()]
        if count is not None and len(values) != count:
            raise ValueError(f"its parameter {name} has {len(values)} numbers instead of {count}")
        # The largest int32 stands for "to the end" in slices.
        if any(value < low or (value > _MAX_PARAMETER and value != (1 << 31) - 1) for value in values):
            raise ValueError(f"its parameter {name} is out of range: {values}")
        return values

    def integer(self, name: str, default: int | None = None, low: int = -_MAX_PARAMETER) -> int:
        """One whole number; errors as `integers`."""
        return self.integers(name, None if default is None else [default], low, count=1)[0]

    def number(self, name: str, default: float | None = None) -> float:
        """One number, as it is stored."""
        if not self.has(name) and default is not None:
            return default
        return float(self.tensor(name).item())

    def flag(self, name: str, default: bool = False) -> bool:
        """One truth value."""
        return bool(self.tensor(name).item()) if self.has(name) else default

    def flags(self, name: str, count: int) -> list[bool]:
        """Truth values, all false where the parameter is not given; ValueError where there are not `count`."""
        if not self.has(name):
            return [False] * count
        tensor = self.tensor(name)
        if tensor.numel() != count:
            raise ValueError(f"its parameter {name} has {tensor.numel()} truth values instead of {count}")
        return [bool(value) for value in tensor.reshape(-1).tolist()]

    def text(self, name: str, choices: Sequence[str], default: str | None = None) -> str:
        """One of the texts that a parameter may have; ValueError for others."""
        value = self._values[name][0] if self.has(name) or default is None else default
        if value not in choices:
            raise ValueError(f"its parameter {name} is none of {', '.join(choices)}")
        return str(value)

    def axis(self, name: str, rank: int, default: int | None = None) -> int:
        """A side's number, counted from 0; negative ones count from the end."""
        axis = self.integer(name, default)
        if not -rank <= axis < rank:
            raise ValueError(f"its parameter {name} is {axis} for {rank} sides")
        return axis % rank

    def expect(self, shape: Sequence[int], index: int = 0) -> None:
        """Insist, before anything is allocated, that a result of this shape is the one declared."""
        declared = self.operation.outputs[index].shape
        fits = len(shape) == len(declared) and all(
            wanted is None or side == wanted for side, wanted in zip(shape, declared, strict=True)
        )
        if not fits or any(side < 0 for side in shape):
            raise ValueError(f"it computes the shape {tuple(shape)}, and {declared} is declared")
        if math.prod(shape) > MAX_ELEMENTS:
            raise ValueError(f"it computes {math.prod(shape)} values")

    def scratch(self, shape: Sequence[int], *tensors: Tensor) -> None:
        """Insist that an intermediate array of this shape is in proportion to the operation's tensors and result."""
        known = sum(tensor.numel() for tensor in tensors) + (self.output.elements or 0)
        if math.prod(shape) > _SCRATCH_FACTOR * known + _SCRATCH_FREE:
            raise ValueError(f"it needs an intermediate array of the shape {tuple(shape)}")


Kernel = Callable[[Call], "Tensor | list[Tensor]"]
"""Computes an operation's result in fp32 (or in integers); several results as a list."""


def rank_of(x: Tensor, least: int, most: int) -> int:
    """The rank of a tensor; ValueError outside the bounds."""
    if not least <= x.ndim <= most:
        raise ValueError(f"it has an input of {x.ndim} sides instead of {least} to {most}")
    return x.ndim


def broadcast(*tensors: Tensor) -> tuple[int, ...]:
    """The shape that tensors have together; ValueError where they have none."""
    return np.broadcast_shapes(*(tuple(tensor.shape) for tensor in tensors))
