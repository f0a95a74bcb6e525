"""Score any model on pairs of images and masks, at the masks' own resolution."""

from __future__ import annotations

import math
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar

import numpy as np

from unet_edge_runtime.errors import InputError, OutOfMemoryError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.transform import pad_image, postprocess, preprocess

from .data.resources import local_processes, usable_cores

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from unet_edge_runtime.backend import Backend
    from unet_edge_runtime.segmenter import Segmenter
    from unet_edge_runtime.spec import ModelSpec

    from .data.pairing import Pair

__all__ = ["FLIPS", "default_batch", "evaluate", "segment_pairs"]

T = TypeVar("T")

GPU_BATCH = 8  # images
THREADS = 4  # that decode files, and as many that count labels, where this process has as many cores
WAITING = 4  # batches' worth of images that may wait for others of their size

FLIPS: dict[str, tuple[tuple[int, ...], ...]] = {
    "none": ((),),
    "horizontal": ((), (-1,)),
    "both": ((), (-1,), (-2,), (-2, -1)),
}
"""Of each kind of test-time flips the axes that are mirrored, one tuple a run of the network."""


class Prepared(NamedTuple):
    """A pair, its image (C, h, w) for the network, and its true labels (H, W)."""

    pair: Pair
    x: NDArray[np.float32]
    truth: NDArray[np.uint8]


def evaluate(
    segmenter: Segmenter,
    pairs: Iterable[Pair],
    *,
    flips: str = "none",
    shard: tuple[int, int] = (0, 1),
    batch: int = 1,
    area: float = math.inf,
    on_image: Callable[[Pair, ConfusionMatrix], None] | None = None,
) -> ConfusionMatrix:
    """Every pair once, counted in one confusion matrix.

    Args:
        segmenter: any model on any backend.
        pairs: what to score it on.
        flips: none, or test-time augmentation: the mean of the logits (or probabilities, where the model returns
            them) over the image and its mirror image (horizontal), or over all four mirrorings (both).
        shard: (rank, world): of every `world` pairs only the one at `rank` is read and counted; the matrices of
            all ranks add up to that of all pairs.
        batch: images of equal size that the network gets at once; for backends that take any number.
        area: the most pixels of a batch, at the network's scale; a single image may have more.
        on_image: told of every pair and its own confusion matrix, as soon as it is known. With a batch above 1
            the order is not that of the pairs.

    Raises:
        InputError: a file cannot be read, sizes differ, a mask holds a value that is no class of the model, or
            flips are asked of a model that returns a class map.
    """
    classes = len(segmenter.spec.classes)
    total = ConfusionMatrix(classes)
    mine = islice(pairs, shard[0], None, shard[1])

    def count(truth: NDArray[np.uint8], predicted: NDArray[np.uint8]) -> ConfusionMatrix:
        return ConfusionMatrix(classes).add(truth, predicted)

    for pair, matrix in _predictions(segmenter, mine, count, flips, batch, area):
        total.counts += matrix.counts
        if on_image:
            on_image(pair, matrix)
    return total


def default_batch(backend: Backend) -> int:
    """How many images of equal size to run at once: several on a GPU; on a processor it gains nothing."""
    device = getattr(backend, "device", None)
    return GPU_BATCH if device is not None and device.type != "cpu" else 1


def segment_pairs(segmenter: Segmenter, pairs: Iterable[Pair]) -> Iterator[tuple[NDArray[np.uint8], NDArray[np.uint8]]]:
    """True and predicted labels (H, W) of each pair, in order; files are read ahead while the network runs."""
    for _, labels in _predictions(segmenter, pairs, lambda truth, predicted: (truth, predicted)):
        yield labels


def _predictions(
    segmenter: Segmenter,
    pairs: Iterable[Pair],
    finish: Callable[[NDArray[np.uint8], NDArray[np.uint8]], T],
    flips: str = "none",
    batch: int = 1,
    area: float = math.inf,
) -> Iterator[tuple[Pair, T]]:
    """Each pair with what `finish` makes of its true and predicted labels; in threads, while the network runs on."""
    spec = segmenter.spec
    if flips not in FLIPS:
        raise InputError(f"flips must be one of {', '.join(FLIPS)}, not {flips!r}")
    if flips != "none" and spec.head == "classmap":
        raise InputError(f"{segmenter.backend.path} returns a class map, of which there is no mean: use --flips none")
    workers = max(1, min(THREADS, usable_cores() // local_processes()))

    def decide(item: Prepared, planes: NDArray[np.float32]) -> tuple[Pair, T]:
        height, width = item.truth.shape
        return item.pair, finish(item.truth, postprocess(planes, spec, (height, width), segmenter.threshold))

    def outputs() -> Iterator[tuple[Prepared, NDArray[np.float32]]]:
        read = _in_threads(lambda pair: _prepare(pair, spec), ((pair,) for pair in pairs), workers)
        for items in _batches(read, batch, area):
            x = np.stack([item.x for item in items])
            # Outputs are averaged before they are enlarged and decided, as in a single run.
            flipped = [np.flip(_run(segmenter, np.flip(x, axes)), axes) for axes in FLIPS[flips]]
            yield from zip(items, flipped[0] if len(flipped) == 1 else np.mean(flipped, axis=0), strict=True)

    yield from _in_threads(decide, outputs(), workers)


def _run(segmenter: Segmenter, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images (N, C, h, w) of one size; only a network of no fixed size gets them at once."""
    height, width = x.shape[2:]
    if len(x) == 1 or segmenter.input_size(height, width):
        return np.stack([segmenter.run(image) for image in x])
    padded = pad_image(x, padded_size((height, width), segmenter.spec.multiple), segmenter.spec.padding)
    try:
        return segmenter.backend.run(padded)[..., :height, :width]
    except OutOfMemoryError:
        pass
    half = len(x) // 2  # outside of the handler: the error holds what the failed pass had in memory
    return np.concatenate([_run(segmenter, part) for part in (x[:half], x[half:])])


def _batches(items: Iterable[Prepared], batch: int, area: float) -> Iterator[list[Prepared]]:
    """Lists of items whose images have one size, as soon as they are full; smaller where too many wait."""
    waiting: dict[tuple[int, ...], list[Prepared]] = defaultdict(list)
    for item in items:
        size = item.x.shape
        waiting[size].append(item)
        if len(waiting[size]) >= min(batch, area // (size[1] * size[2])):
            yield waiting.pop(size)
        elif sum(map(len, waiting.values())) >= WAITING * batch:
            yield waiting.pop(next(iter(waiting)))  # the size that has waited longest
    yield from waiting.values()


def _in_threads(work: Callable[..., T], items: Iterable[tuple[Any, ...]], workers: int) -> Iterator[T]:
    """`work(*item)` of each item, in order, a few items ahead of what is taken."""
    waiting: deque[Future[T]] = deque()
    with ThreadPoolExecutor(workers) as pool:
        try:
            for item in items:
                waiting.append(pool.submit(work, *item))
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
    return Prepared(pair, preprocess(image, spec), truth)
