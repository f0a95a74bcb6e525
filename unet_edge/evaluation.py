"""Score any model on pairs of images and masks, at the masks' own resolution."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.transform import postprocess, preprocess

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from unet_edge_runtime.segmenter import Segmenter
    from unet_edge_runtime.spec import ModelSpec

    from .data.pairing import Pair

__all__ = ["evaluate", "scores_of", "segment_pairs"]

Prepared = tuple["NDArray[np.float32]", "NDArray[np.uint8]"]


def evaluate(segmenter: Segmenter, pairs: Iterable[Pair]) -> ConfusionMatrix:
    """Every pair once, counted in one confusion matrix.

    Args:
        segmenter: any model on any backend.
        pairs: what to score it on.

    Raises:
        InputError: a file cannot be read, sizes differ, or a mask holds a value that is no class of the model.
    """
    matrix = ConfusionMatrix(len(segmenter.spec.classes))
    for truth, predicted in segment_pairs(segmenter, pairs):
        matrix.add(truth, predicted)
    return matrix


def segment_pairs(segmenter: Segmenter, pairs: Iterable[Pair]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """True and predicted labels (H, W) of each pair, in order; files are read ahead while the network runs."""
    spec = segmenter.spec
    for x, truth in _read_ahead(pairs, spec):
        height, width = truth.shape
        yield truth, postprocess(segmenter.run(x), spec, (height, width), segmenter.threshold)


def _read_ahead(pairs: Iterable[Pair], spec: ModelSpec) -> Iterator[Prepared]:
    workers = min(4, os.cpu_count() or 1)
    waiting: deque[Future[Prepared]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for pair in pairs:
                waiting.append(pool.submit(_prepare, pair, spec))
                if len(waiting) > workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()


def _prepare(pair: Pair, spec: ModelSpec) -> Prepared:
    image = read_image(pair.image)
    truth = labels_from_mask(read_mask(pair.mask), spec, pair.mask)
    if truth.shape != image.shape[:2]:
        raise InputError(f"{pair.mask}: its size {truth.shape} differs from that of {pair.image}, {image.shape[:2]}")
    return preprocess(image, spec), truth


def scores_of(
    segmenter: Segmenter,
    pairs: Sequence[Pair],
    include_background: bool = False,
    progress: Callable[[Sequence[Pair]], Iterable[Pair]] = iter,
) -> dict[str, Any]:
    """`evaluate` as plain data: the scores, the number of images, the backend and the model.

    Args:
        segmenter: any model on any backend.
        pairs: what to score it on.
        include_background: count the background class in the means.
        progress: wraps the pairs, for a progress bar.
    """
    matrix = evaluate(segmenter, progress(pairs))
    return {
        **matrix.summary(segmenter.spec, include_background),
        "images": len(pairs),
        "backend": segmenter.backend.name,
        "model": str(segmenter.backend.path),
    }
