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

from unet_edge_bench.timing.worker import answer_stream

__all__ = ["ROADS", "Worker"]

SETTLE = 0.5  # seconds for loader processes to fill their queues, so that they do not disturb the other side's turn


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
        time.sleep(SETTLE)
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


def our_training(
    checkpoint: str, images: str, masks: str, names: list[str], suffix: str, threads: int
) -> Iterator[int]:
    """Steps of our trainer with the recipe "seed", loading included; yields the images of each."""
    import torch

    from unet_edge.checkpoint import read_checkpoint
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.split import Split
    from unet_edge.training.config import TrainConfig
    from unet_edge.training.run_folder import RunFolder
    from unet_edge.training.trainer import Trainer

    torch.set_num_threads(threads)
    loaded = read_checkpoint(checkpoint)
    chosen = [pair for pair in pair_files(Path(images), Path(masks), suffix)[0] if pair.name in set(names)]
    run = RunFolder(Path(tempfile.gettempdir()) / "no run is written")
    config = TrainConfig.from_recipe("seed")
    trainer = Trainer(config, loaded.build(), loaded.spec, Split(chosen, []), run, torch.device("cpu"))
    for epoch in itertools.count(1):
        trainer.batches.epoch = epoch
        for batch, labels in trainer.loader:
            trainer._train_step(batch, labels)
            yield len(batch)


def milesial_training(
    checkpoint: str, images: str, masks: str, names: list[str], suffix: str, threads: int
) -> Iterator[int]:
    """The same as milesial's training does it."""
    import milesial
    import torch

    torch.set_num_threads(threads)
    return milesial.training_steps(Path(checkpoint), Path(images), Path(masks), names, suffix)


ROADS: dict[str, Callable[..., Iterator[int]]] = {
    "our masks": our_masks,
    "milesial masks": milesial_masks,
    "our training": our_training,
    "milesial training": milesial_training,
}


def _to_files(photos: list[str], convert: Callable[[Path, Path], None]) -> Iterator[int]:
    with tempfile.TemporaryDirectory() as folder:
        for photo in itertools.cycle(map(Path, photos)):
            convert(photo, Path(folder) / f"{photo.stem}_OUT.png")
            yield 1


if __name__ == "__main__":
    sys.exit(answer_stream(Worker().answer))
