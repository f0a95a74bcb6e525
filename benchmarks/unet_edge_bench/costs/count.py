"""Arithmetic and traffic of a network, layer by layer, from its graph and an input size."""

from __future__ import annotations

from pathlib import Path

from unet_edge_runtime.backend import backend_for
from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.image import MAX_PIXELS

from .layer import LayerCost

__all__ = ["check_multiple", "check_request", "layer_costs"]


def layer_costs(path: Path | str, backend: str, size: tuple[int, int], batch: int = 1) -> list[LayerCost]:
    """Count every operation of a network, in order of execution.

    The count is of the network and not of a runtime: a checkpoint's batch norm is folded away, as in its exports,
    and nothing is fused or reordered, so that a checkpoint and its ONNX and Core ML files come to the same
    multiply-accumulates. Bytes follow the file's own precision. An ONNX file is run once for its shapes, in a
    process of its own, by ONNX Runtime alone.

    Args:
        path: a checkpoint, an .onnx or an .mlpackage.
        backend: that is to run it; of one that is not ours, the kind of file decides how to count.
        size: (height, width) of the network's input.
        batch: images; a graph that is fixed at one image is counted as that many runs.

    Raises:
        InputError: the network does not take that size or batch.
        ModelFileError: the file is missing, damaged or of an unknown kind.
        BackendError: the file cannot be run or counted here; `MissingExtraError` names a package that is missing.
    """
    path = Path(path)
    check_request(path, size, batch)
    kind = backend if backend in ("onnx", "torch", "coreml", "coreml-ref") else backend_for(path)
    if kind == "onnx":
        from .count_onnx import count_onnx as count
    elif kind == "torch":
        from .count_torch import count_torch as count
    else:
        from .count_coreml import count_coreml as count
    return count(path, size, batch)


def check_request(path: Path, size: tuple[int, int], batch: int) -> None:
    """Refuse what no network takes, before anything is allocated for it.

    Raises:
        InputError: a side or the batch is not positive, or there are more pixels than an image may have.
        ModelFileError: there is no such file.
    """
    if min(*size, batch) < 1:
        raise InputError(f"{path}: {batch} images of {size[0]}x{size[1]} are nothing to count: give at least 1 of each")
    if size[0] * size[1] * batch > MAX_PIXELS:
        raise InputError(f"{path}: {batch} images of {size[0]}x{size[1]} are too large: choose a smaller size")
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file")


def check_multiple(path: Path, size: tuple[int, int], multiple: int) -> None:
    """Refuse a size that the network cannot halve and double again.

    Raises:
        InputError: a side is no multiple.
    """
    if size[0] % multiple or size[1] % multiple:
        raise InputError(f"{path}: height and width must be multiples of {multiple}, not {size[0]}x{size[1]}")
