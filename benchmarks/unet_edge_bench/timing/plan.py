"""What is measured, and how often: rows and protocol."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from unet_edge_bench.stats import CONFIDENCE
from unet_edge_runtime.errors import InputError

__all__ = ["DEFAULT", "QUICK", "Protocol", "Row"]

_STARTING = 4.0  # seconds that a process takes to import, load and warm up; for the estimate alone


@dataclass(frozen=True)
class Row:
    """One model on one backend with one choice of everything: one line of the table, and one process a launch.

    Attributes:
        id: names the row in the results; unique.
        path: the model.
        backend: a backend's name, or "module:Class", imported in the worker.
        image: a file that `read_image` reads, at the size that gives the wanted network input.
        size: (height, width) of the network's input that was asked for; None for what the image gives.
        threads: inside one operation; also of OpenMP and BLAS.
        batch: images a call.
        streams: Python threads that use the model at the same time.
        options: for the backend's class, besides path and threads.
        label: for people; by default the id.
        precision: asked for; None for the model's own.
        compute_units: of Core ML.
        untimed: why this row is not to be timed; empty for one that is.
        refused: why it cannot be; it counts as failed.
        python: the interpreter that runs the worker.
        env: added to the worker's environment.
    """

    id: str
    path: Path
    backend: str
    image: Path
    threads: int
    batch: int = 1
    streams: int = 1
    size: tuple[int, int] | None = None
    options: Mapping[str, Any] = field(default_factory=dict)
    label: str = ""
    precision: str | None = None
    compute_units: str | None = None
    untimed: str = ""
    refused: str = ""
    python: str = sys.executable
    env: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True)
class Protocol:
    """How often and how long to measure.

    Attributes:
        launches: new processes for each row.
        rounds: turns of each row in a launch.
        seconds_per_turn: least duration of a turn.
        settle_seconds: of untimed images that begin a turn, at least one: threads of the row before may spin as long
            (Intel's OpenMP by default 0.2 s), and caches hold its weights.
        min_samples: least samples of a turn.
        warmup_seconds: most that a warm-up may take.
        seed: of every resampling.
        timeout: seconds after which one answer of a process is given up.

    Raises:
        InputError: fewer than two launches or rounds, nothing to do in a turn, or a negative seed.
    """

    launches: int = 5
    rounds: int = 5
    seconds_per_turn: float = 1.0
    min_samples: int = 5
    settle_seconds: float = 0.2
    warmup_seconds: float = 5.0
    seed: int = 0
    timeout: float = 900.0

    def __post_init__(self) -> None:
        if self.launches < 2 or self.rounds < 2:
            raise InputError(
                f"{self.launches} launches of {self.rounds} rounds give no interval: take at least 2 of each"
            )
        if self.min_samples < 1 or not 0 <= self.seconds_per_turn < self.timeout:
            raise InputError(
                f"a turn of {self.seconds_per_turn:g} s and {self.min_samples} samples: take at least one sample, and "
                f"0 to less than {self.timeout:g} s"
            )
        if self.seed < 0:
            raise InputError(f"the seed is {self.seed}: take 0 or more")

    def seconds(self, rows: int) -> float:
        """How long measuring that many rows takes at least."""
        return rows * self.launches * (_STARTING + self.rounds * (self.settle_seconds + self.seconds_per_turn))

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; the seed stands elsewhere."""
        return {**{name: value for name, value in asdict(self).items() if name != "seed"}, "confidence": CONFIDENCE}


DEFAULT = Protocol()

QUICK = Protocol(launches=4, rounds=3, seconds_per_turn=0.4, warmup_seconds=2.0)
"""About a minute for two or three rows: enough for differences of more than a tenth on a quiet machine."""
