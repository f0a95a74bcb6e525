"""Pictures for the page, as PNG inside data URIs."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unet_edge.data.pairing import Pair
from unet_edge.html import Picture, PictureRow, picture_uri
from unet_edge_runtime.image import read_image, to_uint8
from unet_edge_runtime.mask import labels_from_mask, overlay, read_mask
from unet_edge_runtime.spec import IGNORE_LABEL, ModelSpec

from .agreement import mask_file
from .artefacts import title_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

Window = tuple[slice, ...]

__all__ = ["difference_maps", "gallery"]

ZOOM = 2  # whole-numbered, so that a pixel stays a square
WRONG = (255, 64, 64)
MARGIN = 8  # pixels around what is shown
DIM = 0.45  # brightness of an image that marks are laid over


def gallery(
    pairs: Sequence[Pair], predictions: Path, backends: Sequence[str], spec: ModelSpec, rows: int
) -> list[PictureRow]:
    """Image, truth, each backend's labels, and where the first backend is wrong, for some of the pairs, evenly spread.

    Args:
        pairs: what was predicted.
        predictions: folder of the masks.
        backends: whose masks to show; the first is the reference.
        spec: classes and colours.
        rows: how many images at most.
    """
    count = min(rows, len(pairs))
    chosen = [pairs[(2 * i + 1) * len(pairs) // (2 * count)] for i in range(count)]
    window = _window([_truth(pair, spec) for pair in chosen], spec)
    return [_row(pair, predictions, backends, spec, window) for pair in chosen]


def difference_maps(
    pairs: Sequence[Pair], predictions: Path, backends: Sequence[str], spec: ModelSpec
) -> list[Picture]:
    """All images laid on each other: where the reference is wrong, and where each other backend differs from it.

    The brighter a mark, the more images have it there. Empty where the images are not of one size.
    """
    images = [to_uint8(read_image(pair.image)) for pair in pairs]
    if len({image.shape for image in images}) > 1:
        return []
    ground = np.mean(images, axis=0).astype(np.uint8)
    truth = [_truth(pair, spec) for pair in pairs]
    labels = {name: [_predicted(pair, predictions, name, spec) for pair in pairs] for name in backends}
    reference, *others = backends
    wrong = [_differs(a, b) for a, b in zip(truth, labels[reference], strict=True)]
    pictures = [_map(f"{title_of(reference)} against the truth", ground, wrong)]
    for name in others:
        differing = [_differs(a, b) for a, b in zip(labels[reference], labels[name], strict=True)]
        pictures.append(_map(f"{title_of(name)} against {title_of(reference)}", ground, differing))
    return pictures


def _row(pair: Pair, predictions: Path, backends: Sequence[str], spec: ModelSpec, window: Window) -> PictureRow:
    image, truth = to_uint8(read_image(pair.image))[window], _truth(pair, spec)[window]
    labels = {name: _predicted(pair, predictions, name, spec)[window] for name in backends}
    pictures = [Picture("image", _uri(Image.fromarray(image))), Picture("truth", _labels_uri(truth, spec))]
    pictures += [Picture(title_of(name), _labels_uri(one, spec)) for name, one in labels.items()]
    wrong = _differs(truth, labels[backends[0]])
    marked = (image * DIM).astype(np.uint8)
    marked[wrong] = WRONG
    last = Picture(
        f"{title_of(backends[0])} errs", _uri(Image.fromarray(marked)), f"{wrong.mean():.1%} of the pixels shown"
    )
    return PictureRow(pair.name, [*pictures, last])


def _window(truths: Sequence[NDArray[np.uint8]], spec: ModelSpec) -> Window:
    """What all the images have in it besides background, with a margin; all where they are not of one size."""
    if len({truth.shape for truth in truths}) > 1:
        return slice(None), slice(None)
    rows, columns = np.nonzero(np.any([truth != spec.background for truth in truths], axis=0))
    if not len(rows):
        return slice(None), slice(None)
    return tuple(slice(max(0, int(place.min()) - MARGIN), int(place.max()) + 1 + MARGIN) for place in (rows, columns))


def _map(title: str, ground: NDArray[np.uint8], differing: list[NDArray[np.bool_]]) -> Picture:
    counts = np.sum(differing, axis=0)
    strength = (counts / max(1, counts.max()))[..., None] ** 0.7
    mixed = ground * DIM * (1 - strength) + np.asarray(WRONG) * strength
    pixels = sum(one.size for one in differing)
    note = f"{int(counts.sum()):,} of {pixels:,} pixels differ"
    return Picture(title, _uri(Image.fromarray(mixed.astype(np.uint8))), note)


def _differs(first: NDArray[np.uint8], second: NDArray[np.uint8]) -> NDArray[np.bool_]:
    return (first != second) & (first != IGNORE_LABEL)


def _truth(pair: Pair, spec: ModelSpec) -> NDArray[np.uint8]:
    return labels_from_mask(read_mask(pair.mask), spec, pair.mask)


def _predicted(pair: Pair, predictions: Path, backend: str, spec: ModelSpec) -> NDArray[np.uint8]:
    path = mask_file(predictions, backend, pair.name)
    return labels_from_mask(read_mask(path), spec, path)


def _labels_uri(labels: NDArray[np.uint8], spec: ModelSpec) -> str:
    black: NDArray[Any] = np.zeros((*labels.shape, 3), np.uint8)
    return _uri(overlay(black, labels, spec, opacity=1))


def _uri(picture: Image.Image) -> str:
    large = picture.resize((picture.width * ZOOM, picture.height * ZOOM), Image.Resampling.NEAREST)
    if _is_grey(large):
        large = large.convert("L")
    return picture_uri(large)


def _is_grey(picture: Image.Image) -> bool:
    red, green, blue = (np.asarray(channel) for channel in picture.split())
    return bool((red == green).all() and (green == blue).all())
