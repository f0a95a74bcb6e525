"""The constants of a function, decoded and expanded once: what its weights are."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from .constexpr import CONSTEXPR, expand
from .package import Package
from .program import Operation
from .values import Constant, TensorType, shown
from .weights import ELEMENTS, damaged

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["COMPILE_TIME", "as_tensor", "constants_of"]

COMPILE_TIME = CONSTEXPR | {"const"}
"""Types of operations that are done when a program is loaded."""

# An element takes at least a bit in the file, and vector palettes give it up to this many numbers in practice.
_MAX_EXPANSION = 256
_FREE = 1 << 22

# torch has no arithmetic for wider unsigned types.
_TENSOR_TYPES = {"f2": np.float32, "u2": np.int32, "u4": np.int64, "u8": np.int64}


def constants_of(package: Package, operations: Iterable[Operation]) -> dict[str, Any]:
    """Decode every constant, and expand every compressed weight, of a function.

    Args:
        package: where they stand.
        operations: all of the function.

    Returns:
        Name -> array in its stored type, text, or list of texts.

    Raises:
        ModelFileError: one is damaged, has another type than declared, or all together are far larger than the
            package.
    """
    found: dict[str, Any] = {}
    total = 0
    for operation in operations:
        if operation.type not in COMPILE_TIME:
            continue
        total += sum(output.elements or 0 for output in operation.outputs)
        if total > _MAX_EXPANSION * package.stored_bytes + _FREE:
            raise damaged(package.path, f"its constants expand to {total} numbers, far more than it holds")
        if operation.type == "const":
            values = [_constant(package, operation)]
        else:
            values = _expanded(package, operation, found)
        for output, value in zip(operation.outputs, values, strict=True):
            _check(package, operation, output, value)
            found[output.name] = value
    return found


def as_tensor(value: Any) -> Any:
    """A constant as kernels take it: floating point in fp32, whole numbers in a type that torch computes with."""
    if not isinstance(value, np.ndarray):
        return value
    wide = _TENSOR_TYPES.get(value.dtype.str[1:], value.dtype)
    tensor = torch.from_numpy(value.astype(wide, order="C"))
    # On a CPU convolutions of few channels are several times faster in this layout.
    return tensor.contiguous(memory_format=torch.channels_last) if tensor.ndim == 4 else tensor


def _constant(package: Package, operation: Operation) -> Any:
    constant = operation.attributes.get("val")
    if constant is None or len(operation.outputs) != 1:
        raise damaged(package.path, f"the constant {shown(operation.name)} has no value")
    return constant.value()


def _expanded(package: Package, operation: Operation, found: dict[str, Any]) -> list[NDArray[Any]]:
    """Parameters are attributes in iOS 16's forms, inputs in iOS 18's."""
    values: dict[str, Any] = {key: one.value() for key, one in operation.attributes.items() if key != "name"}
    for parameter, bound in operation.inputs.items():
        if len(bound) != 1 or (isinstance(bound[0], str) and bound[0] not in found):
            raise damaged(package.path, f"the compressed weight {shown(operation.name)} is not constant")
        values[parameter] = bound[0].value() if isinstance(bound[0], Constant) else found[bound[0]]
    shapes = [tuple(side or 0 for side in output.shape) for output in operation.outputs]
    try:
        return expand(operation.type, values, shapes)
    # Parameters of any type and shape reach numpy from a file: its errors are many.
    except Exception as error:
        what = f"the compressed weight {shown(operation.name)} ({operation.type}) does not expand"
        raise damaged(package.path, f"{what}: {_reason(error)}") from None


def _check(package: Package, operation: Operation, output: TensorType, value: Any) -> None:
    if isinstance(value, np.ndarray):
        element = ELEMENTS.get(output.dtype)
        fits = element is not None and element.type == value.dtype and output.shape == value.shape
    else:
        fits = output.dtype == "string"
    if not fits:
        raise damaged(package.path, f"the constant {shown(operation.name)} is not of its declared type")


def _reason(error: Exception) -> str:
    if isinstance(error, KeyError):
        return f"it lacks {error}"
    return str(error).strip().partition("\n")[0][:120] or type(error).__name__
