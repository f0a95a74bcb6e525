"""Attributes of ONNX operators in PyTorch's terms (onnx.ai/onnx/operators)."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from onnx import helper
from torch import Tensor

from unet_edge_runtime.errors import ModelFileError

__all__ = ["convolution", "pooling", "resizing"]

_SAMPLING = {
    "align_corners": "STRICT_ALIGN_CORNERS",
    "half_pixel": "UNALIGN_CORNERS",
    "pytorch_half_pixel": "UNALIGN_CORNERS",
    "asymmetric": "DEFAULT",
}


def convolution(node: Any, kernel: tuple[int, ...]) -> dict[str, Any]:
    """Of Conv and ConvTranspose."""
    given = _attributes(node)
    stride, dilation = tuple(given.get("strides", (1, 1))), tuple(given.get("dilations", (1, 1)))
    return {
        "stride": stride,
        "pads": _pads(given, kernel, dilation),
        "dilation": dilation,
        "groups": int(given.get("group", 1)),
    }


def pooling(node: Any) -> dict[str, Any]:
    """Of MaxPool and AveragePool."""
    given = _attributes(node)
    kernel = tuple(given.get("kernel_shape", (1, 1)))
    return {
        "how": "max" if node.op_type == "MaxPool" else "average",
        "kernel": kernel,
        "stride": tuple(given.get("strides", (1, 1))),
        "pads": _pads(given, kernel, (1, 1)),
    }


def resizing(node: Any, scales: Tensor | None, path: Path) -> dict[str, Any]:
    """Of Resize and Upsample; the factors have to be constant."""
    given = _attributes(node)
    if scales is None or len(scales) != 4:
        raise ModelFileError(f"{path}: {node.name} has no constant factors: export it again")
    how = given.get("mode", b"nearest").decode()
    sampling = given.get("coordinate_transformation_mode", b"half_pixel").decode()
    mode = {"nearest": "nearest", "cubic": "bicubic"}.get(how) or _SAMPLING.get(sampling, sampling)
    return {"mode": mode, "factor": (float(scales[2]), float(scales[3]))}


def _attributes(node: Any) -> dict[str, Any]:
    return {each.name: helper.get_attribute_value(each) for each in node.attribute}


def _pads(given: dict[str, Any], kernel: tuple[int, ...], dilation: tuple[int, ...]) -> tuple[int, ...]:
    """Top, left, bottom, right; the automatic ones as for a stride of 1, which the U-Net's padded layers have."""
    how = given.get("auto_pad", b"NOTSET").decode()
    if how in ("NOTSET", "VALID"):
        return tuple(given.get("pads", (0, 0, 0, 0))) if how == "NOTSET" else (0, 0, 0, 0)
    totals = [(side - 1) * step for side, step in zip(kernel, dilation, strict=True)]
    low = [total // 2 if how == "SAME_UPPER" else total - total // 2 for total in totals]
    return (*low, *(total - before for total, before in zip(totals, low, strict=True)))
