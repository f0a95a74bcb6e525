"""Launches and rounds: who has a turn when, and what each turn brought."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeVar

from unet_edge_bench.process import Child
from unet_edge_runtime.errors import BackendError

from .noise import Noise, ReferenceLoop
from .plan import Protocol, Row

__all__ = ["Campaign", "Measured", "rotated", "run_campaign"]

WORKER = "unet_edge_bench.timing.worker"

T = TypeVar("T")


@dataclass
class Measured:
    """What was measured of one row.

    Attributes:
        startup_ms: import, load and first run, one number a launch.
        warmup: images and whether it became stationary, one a launch.
        samples_ms: samples of each stage, by launch and round.
        images: finished in each turn, by launch and round.
        seconds: that each turn took, likewise.
        peak_memory: bytes, one number a launch.
        facts: what the worker says about the open model: size, precision, head, proves.
        reason: why the row failed, or None.
    """

    startup_ms: dict[str, list[float]] = field(default_factory=lambda: {"import": [], "load": [], "first_run": []})
    warmup: list[dict[str, Any]] = field(default_factory=list)
    samples_ms: dict[str, list[list[list[float]]]] = field(
        default_factory=lambda: {"preprocess": [], "inference": [], "postprocess": []}
    )
    images: list[list[int]] = field(default_factory=list)
    seconds: list[list[float]] = field(default_factory=list)
    peak_memory: list[int | None] = field(default_factory=list)
    facts: dict[str, Any] = field(default_factory=dict)
    reason: str | None = None


@dataclass
class Campaign:
    """A finished, or interrupted, campaign.

    Attributes:
        rows: what was measured, by the row's id.
        noise: the reference loop's.
        complete: False when it was interrupted.
    """

    rows: dict[str, Measured]
    noise: Noise
    complete: bool = True


def run_campaign(
    rows: Sequence[Row], protocol: Protocol, progress: Callable[[int, int, str], None] = lambda *_: None
) -> Campaign:
    """Measure all rows, interleaved. What happens to one row never ends the others; Ctrl-C keeps what is there.

    Args:
        rows: with different ids; those that are `untimed` or `refused` are left out.
        protocol: how often.
        progress: told steps done, steps in all, and what comes next.

    Raises:
        BackendError: the reference loop cannot run.
    """
    rows = [row for row in rows if not (row.untimed or row.refused)]
    threads = max((row.threads for row in rows), default=1)
    campaign = Campaign({row.id: Measured() for row in rows}, Noise(threads))
    with ReferenceLoop(threads) as loop:
        campaign.noise.before_ms = campaign.noise.after_ms = loop.steady()
        steps = _Steps(protocol.launches * (1 + protocol.rounds) * len(rows), progress)
        try:
            for launch in range(protocol.launches):
                # Backwards every other time, so that no row always follows the same one.
                order = rotated(rows[:: -1 if launch % 2 else 1], launch)
                _launch(order, campaign, protocol, loop, steps)
        except KeyboardInterrupt:
            campaign.complete = False
        campaign.noise.after_ms = loop.steady()
    return campaign


def rotated(items: Sequence[T], by: int) -> list[T]:
    """A B C, C A B, B C A, ..."""
    by = by % len(items) if items else 0
    return [*items[len(items) - by :], *items[: len(items) - by]]


class _Steps:
    def __init__(self, total: int, progress: Callable[[int, int, str], None]) -> None:
        self.total, self.progress, self.done = total, progress, 0

    def __call__(self, row: Row) -> None:
        self.progress(self.done, self.total, row.label or row.id)
        self.done += 1


def _launch(rows: Sequence[Row], campaign: Campaign, protocol: Protocol, loop: ReferenceLoop, steps: _Steps) -> None:
    """New processes for all rows that have not failed, and their rounds."""
    campaign.noise.samples_ms.append([])
    with contextlib.ExitStack() as stack:
        runs = [_Run(row, campaign.rows[row.id], protocol, stack) for row in rows]
        for run in runs:
            steps(run.row)
            run.attempt(run.start)
        for number in range(protocol.rounds):
            campaign.noise.samples_ms[-1].append(loop.sample())
            for run in rotated(runs, number):
                steps(run.row)
                run.attempt(run.turn)
        for run in runs:
            run.attempt(run.end)


class _Run:
    """One launch of one row."""

    child: Child

    def __init__(self, row: Row, measured: Measured, protocol: Protocol, stack: contextlib.ExitStack) -> None:
        self.row, self.measured, self.protocol, self.stack = row, measured, protocol, stack

    def attempt(self, step: Callable[[], None]) -> None:
        """Take a step unless the row has failed; if it fails now, keep the reason and end its process."""
        if self.measured.reason is not None:
            return
        try:
            step()
        except BackendError as error:
            self.measured.reason = str(error)
            if hasattr(self, "child"):
                self.child.close()

    def start(self) -> None:
        self.child = self.stack.enter_context(Child(WORKER, self.row.threads, self.row.python, self.row.env))
        opened = self._ask("open", **_request(self.row))
        startup = {
            "import": opened.pop("import_ms"),
            "load": opened.pop("load_ms"),
            "first_run": self._ask("first")["ms"],
        }
        self.measured.warmup.append(self._ask("warm", seconds=self.protocol.warmup_seconds))
        for name, value in startup.items():
            self.measured.startup_ms[name].append(value)
        self.measured.facts = opened
        for stage in self.measured.samples_ms.values():
            stage.append([])
        self.measured.images.append([])
        self.measured.seconds.append([])

    def turn(self) -> None:
        protocol = self.protocol
        turn = self._ask(
            "turn", settle=protocol.settle_seconds, seconds=protocol.seconds_per_turn, least=protocol.min_samples
        )
        for stage, samples in turn["samples"].items():
            self.measured.samples_ms[stage][-1].append(samples)
        self.measured.images[-1].append(turn["images"])
        self.measured.seconds[-1].append(turn["seconds"])

    def end(self) -> None:
        self.measured.peak_memory.append(self._ask("end")["peak_memory_bytes"])

    def _ask(self, do: str, **request: Any) -> dict[str, Any]:
        return self.child.ask(self.protocol.timeout, do=do, **request)


def _request(row: Row) -> Mapping[str, Any]:
    return {
        "path": str(row.path),
        "backend": row.backend,
        "image": str(row.image),
        "options": dict(row.options),
        "threads": row.threads,
        "batch": row.batch,
        "streams": row.streams,
    }
