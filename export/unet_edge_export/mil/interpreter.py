"""Execute a package's ML Program with PyTorch, on any machine.

It proves the file: that its operations, parameters and weights compute what they should. It does not imitate a
device's arithmetic: sums are in fp32, where a Neural Engine's may be narrower.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, channels_last

from unet_edge_runtime.errors import InputError, ModelFileError

from .call import MAX_ELEMENTS, Call
from .feeds import to_feature, to_tensor
from .package import Package
from .program import Operation
from .steps import FLOATS, Step, prepare
from .values import TensorType, shown
from .weights import damaged

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["PRECISIONS", "Hook", "Interpreter"]

PRECISIONS = ("stored", "ideal")

Hook = Callable[["Operation | None", str, Tensor, Tensor], None]
"""Is told of every value: its operation (None for an input), its name, what was computed, and what was stored."""

_TYPES = {
    "bool": torch.bool,
    "int8": torch.int8,
    "int16": torch.int16,
    "int32": torch.int32,
    "int64": torch.int64,
    "uint8": torch.uint8,
    # torch has no arithmetic for these two.
    "uint16": torch.int32,
    "uint32": torch.int64,
}


class Interpreter:
    """A loaded function of a package.

    Args:
        package: an open package, or the path of one.
        function: its name; the default one if empty.
        precision: "stored" rounds every value to the type that the program declares for it and accumulates in fp32;
            "ideal" does not round, so that what precision costs and what conversion costs can be told apart.
            Weights are what the package stores in both.
        max_elements: of all values that may live at once, 4 bytes each: a bound on memory.

    Attributes:
        package: the open package.
        function: the function that runs.
        precision: as given.

    Raises:
        ModelFileError: the package is missing, damaged or hostile, or has operations that are not known here (all
            of them are named).
        InputError: an unknown precision.
    """

    def __init__(
        self,
        package: Package | Path | str,
        function: str = "",
        precision: str = "stored",
        max_elements: int = MAX_ELEMENTS,
    ) -> None:
        if precision not in PRECISIONS:
            raise InputError(f"precision must be one of {', '.join(PRECISIONS)}, not {precision!r}")
        self.package = package if isinstance(package, Package) else Package.open(package)
        self.function = self.package.function(function)
        self.precision, self.max_elements = precision, max_elements
        self._features = {feature.name: feature for feature in self.function.inputs}
        self._outputs = {feature.name: feature for feature in self.function.outputs}
        self._check_described()
        self._steps, self._constants = prepare(self.package, self.function)

    def predict(self, feeds: Mapping[str, Any], hook: Hook | None = None) -> dict[str, NDArray[np.generic]]:
        """Run the function once.

        Args:
            feeds: input name -> an array in the input's shape; for an image a PIL picture, or (H, W, 3) RGB or
                (H, W) grey values from 0 to 255.
            hook: is told of every value, inputs included, as soon as it is there; it must not change any.

        Returns:
            Output name -> array of the declared element type ("ideal" leaves floating point in float32); for an
            image (H, W, 3) RGB or (H, W) uint8, rounded and clipped (GRAYSCALE_FLOAT16: float16 as it is).

        Raises:
            InputError: an input is missing, unknown, or of another shape or kind.
            ModelFileError: an operation cannot be executed, or does not compute the shape that it declares.
        """
        with torch.inference_mode():
            values = self._inputs(feeds, hook)
            live = sum(value.numel() for value in values.values())
            for step in self._steps:
                declared = sum(output.elements or 0 for output in step.operation.outputs)
                if live + declared > self.max_elements:
                    raise damaged(self.package.path, f"it needs more than {self.max_elements} values at once")
                for output, raw in zip(step.operation.outputs, self._compute(step, values), strict=True):
                    values[output.name] = self._store(raw, output, step.exact)
                    live += raw.numel()
                    if hook:
                        hook(step.operation, output.name, raw, values[output.name])
                live -= sum(values.pop(name).numel() for name in step.last)
            return self._results(values)

    def _check_described(self) -> None:
        """What goes in and out of the program is what the model's description says."""
        for kind, names, described in (
            ("input", [one.name for one in self.function.arguments], self._features),
            ("output", self.function.results, self._outputs),
        ):
            for name in names:
                if name not in described:
                    raise damaged(self.package.path, f"the {kind} {shown(name)} is not described")

    def _inputs(self, feeds: Mapping[str, Any], hook: Hook | None) -> dict[str | int, Tensor]:
        path, names = self.package.path, [one.name for one in self.function.arguments]
        odd = [f"{name!r} is missing" for name in names if name not in feeds]
        odd += [f"{name!r} is none of them" for name in feeds if name not in names]
        if odd:
            raise InputError(f"{path}: its inputs are {', '.join(map(shown, names))}, and {odd[0]}")
        values: dict[str | int, Tensor] = {}
        for argument in self.function.arguments:
            raw = to_tensor(feeds[argument.name], self._features[argument.name], path)
            sides = zip(raw.shape, argument.shape, strict=False)
            if raw.ndim != len(argument.shape) or any(want not in (None, side) for side, want in sides):
                raise damaged(path, f"the input {shown(argument.name)} is {argument.shape} and described otherwise")
            stored = self._store(raw, argument, exact=False)
            # The layout of the weights (`constants.as_tensor`).
            values[argument.name] = stored.contiguous(memory_format=channels_last) if stored.ndim == 4 else stored
            if hook:
                hook(None, argument.name, raw, values[argument.name])
        return values

    def _compute(self, step: Step, values: dict[str | int, Tensor]) -> list[Tensor]:
        operation = step.operation
        bound: dict[str, list[Any]] = {
            parameter: [values[key] if key in values else self._constants[key] for key in keys]
            for parameter, keys in step.inputs.items()
        }
        try:
            call = Call(operation, bound)
            made = step.kernel(call)
            results = made if isinstance(made, list) else [made]
            if len(results) != len(operation.outputs):
                raise ValueError(f"it has {len(results)} results and declares {len(operation.outputs)}")
            for index, result in enumerate(results):
                call.expect(result.shape, index)
        # Parameters of any type and shape reach torch from a file: its errors are many.
        except Exception as error:
            raise self._failed(operation, error) from None
        return results

    def _failed(self, operation: Operation, error: Exception) -> ModelFileError:
        reason = f"it lacks {error}" if isinstance(error, KeyError) else str(error).strip().partition("\n")[0][:160]
        name = f"operation {operation.type} {shown(operation.name)}"
        return damaged(self.package.path, f"{name} cannot be executed ({reason or type(error).__name__})")

    def _store(self, raw: Tensor, declared: TensorType, exact: bool) -> Tensor:
        """Round to the declared type; floating point is kept in fp32."""
        if declared.dtype not in FLOATS:
            return raw.to(_TYPES[declared.dtype])
        if declared.dtype == "fp16" and self.precision == "stored" and not exact:
            return raw.half().float()
        return raw.float()

    def _results(self, values: dict[str | int, Tensor]) -> dict[str, NDArray[np.generic]]:
        found = {}
        for name in self.function.results:
            value = values[name] if name in values else self._constants[name]
            found[name] = to_feature(value, self._outputs[name], self.package.path, self.precision == "ideal")
        return found
