"""One side of a comparison of trainings, in a process of its own: `python -m training_worker`.

Requests, one JSON object a line: first `{"do": "open", "whose", ...}`, which prepares everything up to the first epoch,
then `{"do": "epoch"}` as often as was announced. Each gets one answer; an epoch's is its images, seconds from asking
for the first batch to the end of the last step, mean loss, and the most memory so far.
"""

from __future__ import annotations

import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import IO, Any

from unet_edge.training.reporter import Reporter
from unet_edge_bench.timing.worker import peak_memory

__all__ = ["PARTS", "Turns", "change", "milesial_training", "our_training"]

PARTS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "bf16": {"precision": "bf16"},
    "fp16": {"precision": "fp16"},
    "auto": {"precision": "auto"},
    "compile": {"compile": True},
    "draft": {"fast_decode": True},
    "uncached": {"cache": "none"},
}
"""What a variant of our training is made of, such as "auto+compile": what each part changes in the configuration."""


def change(variant: str) -> dict[str, Any]:
    """Values of `TrainConfig` for a variant; `KeyError` for an unknown part."""
    return {key: value for part in variant.split("+") for key, value in PARTS[part].items()}


@dataclass
class Epoch:
    """What has been done since an epoch began."""

    started: int = field(default_factory=time.perf_counter_ns)
    ended: int = 0
    images: int = 0
    loss: float = 0.0

    def step(self, images: int, loss: float) -> None:
        """Count a step that has just ended."""
        self.ended = time.perf_counter_ns()
        self.images += images
        self.loss += images * loss


class Turns(Reporter):
    """Lets a training do one epoch for each request: what lies between two epochs belongs to no epoch's time.

    Args:
        requests: a line for each epoch.
        answers: gets a line for each request.
        memory: most bytes so far, or None where it is not known.
    """

    def __init__(self, requests: IO[str], answers: IO[str], memory: Callable[[], int | None]) -> None:
        self.requests, self.answers, self.memory = requests, answers, memory
        self.now: Epoch | None = None
        self.notes: list[str] = []

    @contextmanager
    def epoch(self, *_: Any, **__: Any) -> Iterator[None]:
        """Answer the last request, and wait for the next."""
        self.answer()
        if not self.requests.readline():
            raise SystemExit(0)
        self.now = Epoch()
        yield

    def step(self, images: int, loss: float, *_: Any, **__: Any) -> None:
        """Count a step."""
        assert self.now is not None
        self.now.step(images, loss)

    def note(self, text: str) -> None:
        """Keep what a training has to say."""
        self.notes.append(text)

    def answer(self) -> None:
        """Send what the last epoch took, or, before the first one, that all is ready."""
        answer: dict[str, Any] = {"notes": self.notes}
        if self.now is not None:
            seconds = (self.now.ended - self.now.started) / 1e9
            loss = self.now.loss / max(1, self.now.images)
            answer |= {"images": self.now.images, "seconds": seconds, "loss": loss, "memory_bytes": self.memory()}
        send(self.answers, answer)


def our_training(
    turns: Turns, checkpoint: str, images: str, masks: str, suffix: str, variant: str, **common: Any
) -> None:
    """`unet_edge.train` with the recipe "seed", as a user calls it, without trackers and validation."""
    import torch

    from unet_edge.data.loader import default_workers
    from unet_edge.training.config import TrainConfig
    from unet_edge.training.precision import resolve
    from unet_edge.training.start import DataConfig, NetworkConfig, train

    data = DataConfig(Path(images), Path(masks), mask_suffix=suffix, validation=0)
    network = NetworkConfig(scale=common["scale"], load=Path(checkpoint))
    config = TrainConfig.from_recipe(
        "seed",
        epochs=common["epochs"],
        batch_size=common["batch"],
        validations_per_epoch=1,
        workers=default_workers(torch.device(common["device"])),
        **change(variant),
    )
    if config.precision == "auto":
        turns.note(f"auto is {resolve('auto', torch.device(common['device'])).name} here")
    with tempfile.TemporaryDirectory() as folder:
        train(data, Path(folder) / "run", network, config, common["device"], turns, trackers=())


def milesial_training(
    turns: Turns, checkpoint: str, images: str, masks: str, suffix: str, variant: str, **common: Any
) -> None:
    """The same as milesial's training does it."""
    import milesial

    names = sorted(path.stem for path in Path(images).iterdir())
    training = milesial.Training(
        Path(checkpoint), Path(images), Path(masks), names, suffix, common["batch"], common["device"], variant == "amp"
    )
    for _ in range(common["epochs"]):
        with turns.epoch():
            for count, loss in training.epoch():
                turns.step(count, loss)


SIDES: dict[str, Callable[..., None]] = {"ours": our_training, "milesial": milesial_training}


def main() -> int:
    """Serve until the last epoch, or until standard input ends."""
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)  # libraries' own prints must not reach the answers
    request = json.loads(sys.stdin.readline())
    request.pop("do")
    turns = Turns(sys.stdin, answers, _memory(request["device"]))
    try:
        SIDES[request.pop("whose")](turns, **request)
        turns.answer()
    except Exception as error:  # whatever happens belongs to this side alone
        text = " ".join(str(error).split()) or type(error).__name__
        ours = type(error).__module__ == "unet_edge_runtime.errors"
        send(answers, {"error": text if ours else f"{type(error).__name__}: {text}"})
    return 0


def _memory(device: str) -> Callable[[], int | None]:
    if not device.startswith("cuda"):
        return peak_memory
    import torch

    return torch.cuda.max_memory_allocated


def send(stream: IO[str], value: dict[str, Any]) -> None:
    """Write one line."""
    stream.write(json.dumps(value) + "\n")
    stream.flush()


if __name__ == "__main__":
    sys.exit(main())
