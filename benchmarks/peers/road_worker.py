"""One side of a comparison of whole roads, in a process of its own: `python -m road_worker`.

Requests, one JSON object a line: `{"do": "open", "road", ...}`, `{"do": "turn", "untimed", "timed"}`, `{"do": "end"}`.
"""

from __future__ import annotations

import itertools
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from unet_edge_bench.process import answer_stream

__all__ = ["ROADS", "Worker"]


class Worker:
    """A road and its next images."""

    road: Iterator[int]

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        actions: dict[str, Callable[..., dict[str, Any]]] = {"open": self._open, "turn": self._turn, "end": dict}
        return actions[request.pop("do")](**request)

    def _open(self, road: str, **arguments: Any) -> dict[str, Any]:
        self.road = ROADS[road](**arguments)
        return {}

    def _turn(self, untimed: int, timed: int) -> dict[str, Any]:
        for _ in range(untimed):
            next(self.road)
        started = time.perf_counter_ns()
        images = sum(next(self.road) for _ in range(timed))
        elapsed = time.perf_counter_ns() - started
        return {"ms": elapsed / 1e6 / images}


def our_masks(model: str, photos: list[str], threads: int) -> Iterator[int]:
    """Photo to mask file with the exported model, without end; yields 1 after each."""
    from unet_edge_runtime.segmenter import Segmenter

    segmenter = Segmenter.open(model, threads=threads)
    return _to_files(photos, lambda photo, target: segmenter.segment(photo).save(target))


def milesial_masks(model: str, photos: list[str], threads: int) -> Iterator[int]:
    """The same as milesial's prediction does it."""
    import milesial
    import torch

    torch.set_num_threads(threads)
    network, scale, values = milesial.load(Path(model))
    return _to_files(photos, lambda photo, target: milesial.predict(network, scale, values, photo, target))


ROADS: dict[str, Callable[..., Iterator[int]]] = {
    "our masks": our_masks,
    "milesial masks": milesial_masks,
}


def _to_files(photos: list[str], convert: Callable[[Path, Path], None]) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        for photo in itertools.cycle(map(Path, photos)):
            convert(photo, Path(folder) / f"{photo.stem}_OUT.png")
            yield 1


if __name__ == "__main__":
    sys.exit(answer_stream(Worker().answer))
