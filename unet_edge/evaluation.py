"""Score any model on pairs of images and masks, at the masks' own resolution."""

from __future__ import annotations

from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from itertools import islice
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from unet_edge_runtime.errors import BackendError, InputError
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

GPU_BATCH = 8  # images
READERS = 4  # threads that decode files, where this process has as many cores
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
        on_image: told of every pair and its own confusion matrix, as soon as it is known. With a batch above 1
            the order is not that of the pairs.

    Raises:
        InputError: a file cannot be read, sizes differ, a mask holds a value that is no class of the model, or
            flips are asked of a model that returns a class map.
    """
    total = ConfusionMatrix(len(segmenter.spec.classes))
    mine = islice(pairs, shard[0], None, shard[1])
    for pair, truth, predicted in _predictions(segmenter, mine, flips, batch):
        matrix = ConfusionMatrix(len(segmenter.spec.classes)).add(truth, predicted)
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
    for _, truth, predicted in _predictions(segmenter, pairs, "none", 1):
        yield truth, predicted


def _predictions(
    segmenter: Segmenter, pairs: Iterable[Pair], flips: str, batch: int
) -> Iterator[tuple[Pair, NDArray[np.uint8], NDArray[np.uint8]]]:
    spec = segmenter.spec
    if flips not in FLIPS:
        raise InputError(f"flips must be one of {', '.join(FLIPS)}, not {flips!r}")
    if flips != "none" and spec.head == "classmap":
        raise InputError(f"{segmenter.backend.path} returns a class map, of which there is no mean: use --flips none")
    for items in _batches(_read_ahead(pairs, spec), batch):
        x = np.stack([item.x for item in items])
        # Outputs are averaged before they are enlarged and decided, as in a single run.
        outputs = [np.flip(_run(segmenter, np.flip(x, axes)), axes) for axes in FLIPS[flips]]
        output = outputs[0] if len(outputs) == 1 else np.mean(outputs, axis=0)
        for item, planes in zip(items, output, strict=True):
            height, width = item.truth.shape
            yield item.pair, item.truth, postprocess(planes, spec, (height, width), segmenter.threshold)


def _run(segmenter: Segmenter, x: NDArray[np.float32]) -> NDArray[np.float32]:
    """Run images (N, C, h, w) of one size; only a network of no fixed size gets them at once."""
    height, width = x.shape[2:]
    if len(x) == 1 or segmenter.input_size(height, width):
        return np.stack([segmenter.run(image) for image in x])
    padded = pad_image(x, padded_size((height, width), segmenter.spec.multiple), segmenter.spec.padding)
    try:
        return segmenter.backend.run(padded)[..., :height, :width]
    except BackendError as error:
        if "out of memory" not in str(error).lower():
            raise
    half = len(x) // 2  # outside of the handler: the error holds what the failed pass had in memory
    return np.concatenate([_run(segmenter, part) for part in (x[:half], x[half:])])


def _batches(items: Iterable[Prepared], batch: int) -> Iterator[list[Prepared]]:
    """Lists of `batch` items whose images have one size, as soon as they are full; smaller where too many wait."""
    waiting: dict[tuple[int, ...], list[Prepared]] = defaultdict(list)
    for item in items:
        waiting[item.x.shape].append(item)
        if len(waiting[item.x.shape]) >= batch:
            yield waiting.pop(item.x.shape)
        elif sum(map(len, waiting.values())) >= WAITING * batch:
            yield waiting.pop(next(iter(waiting)))  # the size that has waited longest
    yield from waiting.values()


def _read_ahead(pairs: Iterable[Pair], spec: ModelSpec) -> Iterator[Prepared]:
    workers = max(1, min(READERS, usable_cores() // local_processes()))
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
    return Prepared(pair, preprocess(image, spec), truth)
