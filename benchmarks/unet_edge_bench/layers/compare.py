"""`compare_layers`: two models on one image, layer by layer."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.backend import backend_for
from unet_edge_runtime.errors import BackendError, InputError, MissingExtraError
from unet_edge_runtime.image import as_image
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.transform import pad_image, preprocess

from .report import LayerReport

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .model import LayeredModel

__all__ = ["MAX_SIDE", "MAX_VALUES", "compare_layers"]

MAX_SIDE = 512
"""Of the network pixels that are compared, unless a package has a fixed size: every layer's values are kept."""

MAX_VALUES = 1 << 27
"""Of the candidate's layers together, 512 MiB in fp32; wide networks are compared on fewer pixels for it."""

VALUES_PER_PIXEL = 23
"""Of all layers together, as a multiple of the first layer's channels: 11 at full size, and at most as many again in
each half of the size after it, a geometric series."""

_FORMATS = {
    "torch": ("torch",),
    "onnx": ("onnx",),
    # A device shows no values but its results, so the reference interpreter stands in for it.
    "coreml": ("coreml", "coreml-ref"),
}

Size = tuple[int, int]


def compare_layers(
    reference: Path,
    candidate: Path,
    image: NDArray[np.generic],
    *,
    backends: tuple[str | None, str | None] = (None, None),
    scales: tuple[float | None, float | None] = (None, None),
) -> LayerReport:
    """Run two models on one image and compare every layer's result.

    Each prepares the image in its own way. Core ML packages are executed by the reference interpreter.

    Args:
        reference: a checkpoint, an .onnx file or an .mlpackage.
        candidate: likewise.
        image: (H, W) or (H, W, C) as `read_image` returns.
        backends: names of backends, where the files' kinds shall not decide.
        scales: of checkpoints that do not know their own.

    Raises:
        ModelFileError: a file is missing, damaged, or not of unet-edge.
        BackendError: a backend does not fit its file, or a runtime failed.
        InputError: the image cannot be used, or two packages have no size in common.
        MissingExtraError: torch, onnx or another package of the extra `export` is not installed.
    """
    paths = Path(reference), Path(candidate)
    try:
        models = [_open(*each) for each in zip(paths, backends, scales, strict=True)]
        from .run import run_both
    except ModuleNotFoundError as error:
        package = (error.name or "torch").partition(".")[0]
        raise MissingExtraError(package, "export", "the comparison by layer") from None
    pixels = as_image(np.asarray(image))
    prepared = [preprocess(pixels, model.spec) for model in models]
    shapes = [each.shape for each in prepared]
    names = paths[0].name, paths[1].name
    if shapes[0] != shapes[1]:
        theirs, its = map(_text, shapes)
        reason = f"The two prepare the image differently: it is {theirs} for the reference, {its} for the candidate."
        return LayerReport(*names, (shapes[1][1], shapes[1][2]), (), None, reason)
    size, note = _size(models, (shapes[0][1], shapes[0][2]))
    batches = [_cut(pad_image(each, _at_least(each, size, models), models[1].spec.padding), size) for each in prepared]
    rows, first, reason = run_both(models[0], models[1], batches[0], batches[1])
    return LayerReport(*names, size, tuple(rows), first, reason, note)


def _open(path: Path, backend: str | None, scale: float | None) -> LayeredModel:
    kind = next(name for name, fitting in _FORMATS.items() if backend_for(path) in fitting)
    if backend is not None and backend not in _FORMATS[kind]:
        raise BackendError(f"{path}: backend {backend} does not run it: leave the backend out to compare its layers")
    if kind == "torch":
        from .from_checkpoint import CheckpointModel

        return CheckpointModel(path, scale)
    if kind == "onnx":
        from .from_onnx import OnnxModel

        return OnnxModel(path)
    from .from_package import PackageModel

    return PackageModel(path)


def _size(models: list[LayeredModel], whole: Size) -> tuple[Size, str]:
    """The size of the network's input that both take, and what to say of it where it is not the whole image."""
    multiple = max(model.spec.multiple for model in models)
    padded = padded_size(whole, multiple)
    fixed = _common_sizes(models)
    if fixed:
        holding = [size for size in fixed if size[0] >= whole[0] and size[1] >= whole[1]]
        size = min(holding, key=_area) if holding else max(fixed, key=_area)
    else:
        side = min(MAX_SIDE, int((MAX_VALUES / max(map(_values_per_pixel, models))) ** 0.5))
        limit = max(multiple, side // multiple * multiple)
        size = min(padded[0], limit), min(padded[1], limit)
    if size[0] >= whole[0] and size[1] >= whole[1]:
        return size, ""
    part = f"{size[0]}x{size[1]} of {whole[0]}x{whole[1]} network pixels"
    return size, f"Compared on the middle of the image: {part}."


def _common_sizes(models: list[LayeredModel]) -> list[Size]:
    """Sizes that all models with fixed ones have; empty where none has any."""
    fixed = [set(model.sizes) for model in models if model.sizes]
    if not fixed:
        return []
    common = set.intersection(*fixed)
    if not common:
        listed = " and ".join(f"{sorted(model.sizes)} ({model.path.name})" for model in models)
        raise InputError(f"the packages take images of {listed}: export one of them at the other's --size")
    return sorted(common)


def _values_per_pixel(model: LayeredModel) -> int:
    first = next(layer.weight for layer in model.layers if layer.weight is not None)
    return VALUES_PER_PIXEL * len(first)


def _at_least(x: NDArray[np.float32], size: Size, models: list[LayeredModel]) -> Size:
    """The padded size of the whole image, and not less than the network's."""
    padded = padded_size((x.shape[1], x.shape[2]), max(model.spec.multiple for model in models))
    return max(padded[0], size[0]), max(padded[1], size[1])


def _cut(x: NDArray[np.float32], size: Size) -> NDArray[np.float32]:
    """The middle of a (C, H, W) array, as a batch of one."""
    top, left = ((side - kept) // 2 for side, kept in zip(x.shape[1:], size, strict=True))
    return np.ascontiguousarray(x[None, :, top : top + size[0], left : left + size[1]])


def _area(size: Size) -> int:
    return size[0] * size[1]


def _text(shape: Any) -> str:
    return f"{shape[1]}x{shape[2]} with {shape[0]} channel{'s' if shape[0] > 1 else ''}"
