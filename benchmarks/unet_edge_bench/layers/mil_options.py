"""Parameters of MIL operations in PyTorch's terms (coremltools' MIL reference)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from unet_edge_export.mil import Operation

__all__ = ["convolution", "pooling", "resizing"]

Given = Mapping[str, Any]
"""Parameter -> its constant, or None where it is no constant."""


def convolution(given: Given, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Of conv and conv_transpose."""
    dilation = _pair(given, "dilations")
    return {
        "stride": _pair(given, "strides"),
        "pads": _pads(given, kernel, dilation),
        "dilation": dilation,
        "groups": int(_or(given, "groups", 1)),
    }


def pooling(kind: str, given: Given) -> dict[str, Any]:
    """Of max_pool and avg_pool."""
    kernel = _pair(given, "kernel_sizes")
    return {
        "how": "max" if kind == "max_pool" else "average",
        "kernel": kernel,
        "stride": _pair(given, "strides"),
        "pads": _pads(given, kernel, (1, 1)),
    }


def resizing(operation: Operation, given: Given, shape: Sequence[int | None]) -> dict[str, Any]:
    """Of all that change a size; the factors follow from the declared shapes."""
    after = operation.outputs[0].shape[-2:]
    factor = tuple((new or 1) / (old or 1) for new, old in zip(after, shape[-2:], strict=True))
    nearest = "nearest" in operation.type or _or(given, "interpolation_mode", "LINEAR") != "LINEAR"
    return {"mode": "nearest" if nearest else _sampling(operation.type, given), "factor": factor}


def _sampling(kind: str, given: Given) -> str:
    if kind != "upsample_bilinear":
        return str(_or(given, "sampling_mode", "DEFAULT"))
    if bool(_or(given, "align_corners", True)):
        return "STRICT_ALIGN_CORNERS"
    return "UNALIGN_CORNERS" if bool(_or(given, "half_pixel_centers", True)) else "DEFAULT"


def _or(given: Given, name: str, default: Any) -> Any:
    value = given.get(name)
    return default if value is None else value


def _pair(given: Given, name: str) -> tuple[int, ...]:
    return tuple(int(each) for each in _or(given, name, (1, 1)))


def _pads(given: Given, kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Top, left, bottom, right, where MIL has top, bottom, left, right; "same" as for a stride of 1."""
    how = str(_or(given, "pad_type", "valid"))
    if how == "custom":
        top, bottom, left, right = (int(each) for each in _or(given, "pad", (0, 0, 0, 0)))
        return top, left, bottom, right
    if how == "valid":
        return 0, 0, 0, 0
    totals = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
    low = [total // 2 if how == "same" else total - total // 2 for total in totals]
    return (*low, *(total - before for total, before in zip(totals, low, strict=True)))
