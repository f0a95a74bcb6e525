"""The table of MIL operations that the interpreter executes.

A kernel takes a `Call` and returns the result in wide precision; rounding to the declared type is the interpreter's.
Definitions: coremltools' MIL reference, `converters.mil.mil.ops.defs` (iOS 15 to iOS 18).
"""

from __future__ import annotations

from .call import Kernel
from .operations_conv import CONVOLUTIONS
from .operations_elementwise import ELEMENTWISE
from .operations_shape import SHAPES
from .resize import RESIZERS

__all__ = ["EXACT", "OPERATIONS"]

OPERATIONS: dict[str, Kernel] = {**CONVOLUTIONS, **ELEMENTWISE, **RESIZERS, **SHAPES}
"""Type of an operation -> its kernel."""

EXACT = frozenset(
    [
        *("concat", "crop", "expand_dims", "identity", "max_pool", "maximum", "minimum", "pad", "pixel_shuffle"),
        *("pixel_unshuffle", "reduce_max", "reduce_min", "relu", "reshape", "resize_nearest_neighbor", "select"),
        *("slice_by_index", "slice_by_size", "split", "squeeze", "stack", "tile", "transpose"),
        *("upsample_nearest_neighbor",),
    ]
)
"""Operations whose results are values of their inputs, or zero: there is nothing to round."""
