"""The three stages of one turn's work, timed apart, as a worker runs them."""

from __future__ import annotations

import gc
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.segmenter import Segmenter, padded_size
from unet_edge_runtime.transform import pad_image, postprocess, preprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["STAGES", "Job", "Turn", "Warmup"]

STAGES = ("preprocess", "inference", "postprocess")
"""Image in memory -> network input -> padded, run and cropped -> labels at the image's own size."""

WINDOW = 3
"""Least images of a window of the warm-up; it also lasts at least `WINDOW_SECONDS`."""

WINDOW_SECONDS = 0.1

STATIONARY = 0.02
"""A window whose median differs by less from the one before, and by less than twice this from the one before that,
ends the warm-up: two neighbours are alike by chance too often."""


@dataclass
class Turn:
    """What one turn measured.

    Attributes:
        samples: milliseconds of each stage, one tuple a batch.
        images: that were finished.
        seconds: from the first sample's start to the last one's end.
    """

    samples: list[tuple[float, float, float]] = field(default_factory=list)
    images: int = 0
    seconds: float = 0.0


@dataclass(frozen=True)
class Warmup:
    """How warm-up ended.

    Attributes:
        images: how many it took.
        stationary: whether it ended because nothing changed any more.
    """

    images: int
    stationary: bool


class Job:
    """One image, or a batch of it, through a model again and again.

    Args:
        segmenter: an open model.
        image: (H, W[, C]) as `read_image` returns; reading the file is not timed.
        batch: images a call.
        streams: Python threads that do the same at the same time, with the one model.
        clock: nanoseconds, monotonic.
    """

    def __init__(
        self,
        segmenter: Segmenter,
        image: NDArray[np.generic],
        batch: int = 1,
        streams: int = 1,
        clock: Callable[[], int] = time.perf_counter_ns,
    ) -> None:
        self.segmenter, self.image, self.batch, self.streams, self.clock = segmenter, image, batch, streams, clock
        self.shape = (image.shape[0], image.shape[1])
        self.crop = preprocess(image, segmenter.spec).shape[1:]
        height, width = self.crop
        self.size = segmenter.input_size(height, width) or padded_size((height, width), segmenter.spec.multiple)
        if batch > 1 and (height > self.size[0] or width > self.size[1]):
            raise InputError(
                f"the image is {height}x{width} at the network's scale, this model takes "
                f"{self.size[0]}x{self.size[1]}: a batch needs an image that fits"
            )

    def once(self) -> tuple[float, float, float]:
        """One batch; milliseconds of each stage."""
        clock, spec, threshold = self.clock, self.segmenter.spec, self.segmenter.threshold
        started = clock()
        inputs = [preprocess(self.image, spec) for _ in range(self.batch)]
        prepared = clock()
        outputs = self._run(inputs)
        finished = clock()
        for output in outputs:
            postprocess(output, spec, self.shape, threshold)
        ended = clock()
        return (prepared - started) / 1e6, (finished - prepared) / 1e6, (ended - finished) / 1e6

    def warm_up(self, limit: float) -> Warmup:
        """Go on until three windows in a row take about equally long, or `limit` seconds are over."""
        deadline = self.clock() + round(limit * 1e9)
        medians: list[float] = []
        images = 0
        while self.clock() < deadline:
            turn = self.turn(WINDOW_SECONDS, WINDOW)
            images += turn.images
            medians.append(float(np.median([sum(sample) for sample in turn.samples])))
            if _stationary(medians[-3:]):
                return Warmup(images, True)
        return Warmup(images, False)

    def turn(self, seconds: float, least: int) -> Turn:
        """Time images until `seconds` have passed and `least` samples are there, in every stream.

        Python's garbage collection waits meanwhile.
        """
        turns = [Turn() for _ in range(self.streams)]
        errors: list[BaseException] = []
        gc.collect()
        gc.disable()
        try:
            started = self.clock()
            self._stream_all(turns, errors, started + round(seconds * 1e9), least)
            elapsed = (self.clock() - started) / 1e9
        finally:
            gc.enable()
        if errors:
            raise errors[0]
        samples = [sample for turn in turns for sample in turn.samples]
        return Turn(samples, len(samples) * self.batch, elapsed)

    def _stream_all(self, turns: list[Turn], errors: list[BaseException], deadline: int, least: int) -> None:
        if self.streams == 1:
            self._stream(turns[0], deadline, least)
            return

        def guarded(turn: Turn) -> None:
            try:
                self._stream(turn, deadline, least)
            except Exception as error:  # it belongs to the caller's thread
                errors.append(error)

        threads = [threading.Thread(target=guarded, args=(turn,), daemon=True) for turn in turns]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def _stream(self, turn: Turn, deadline: int, least: int) -> None:
        while len(turn.samples) < least or self.clock() < deadline:
            turn.samples.append(self.once())

    def _run(self, inputs: list[NDArray[np.float32]]) -> list[NDArray[np.float32]]:
        if self.batch == 1:
            return [self.segmenter.run(inputs[0])]
        padding = self.segmenter.spec.padding
        batch = np.stack([pad_image(x, self.size, padding) for x in inputs])
        outputs = self.segmenter.backend.run(batch)
        return list(outputs[:, :, : self.crop[0], : self.crop[1]])


def _stationary(medians: list[float]) -> bool:
    """Whether the last of three windows is like the two before."""
    if len(medians) < 3:
        return False
    farther, before, now = medians
    return abs(now - before) < STATIONARY * before and abs(now - farther) < 2 * STATIONARY * farther
