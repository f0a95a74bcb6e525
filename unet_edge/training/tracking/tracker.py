"""The trackers of a run, together."""

from __future__ import annotations

import contextlib
import functools
import time
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from types import TracebackType
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.errors import InputError

from .channel import Channel, Recorder
from .values import Example, histograms_of

if TYPE_CHECKING:
    import torch

__all__ = ["TRACKERS", "Tracker", "open_tracker"]

TRACKERS = ("tensorboard", "wandb", "mlflow", "none")
OPEN_SECONDS = 10.0
CLOSE_SECONDS = 60.0


def open_tracker(
    names: Sequence[str], folder: Path, config: dict[str, Any], start_step: int, say: Callable[[str], None]
) -> Tracker:
    """Open the trackers of a run.

    One that cannot be opened, fails later or does not keep up is switched off, and `say` is told so in one line.

    Args:
        names: of `TRACKERS`.
        folder: of the run; local files go into it.
        config: what the run is made of, JSON-able.
        start_step: the step from which a resumed run goes on, 0 for a new one: what a killed run recorded after it
            is replaced or kept, never doubled.
        say: called with one line, in the thread that calls the tracker.

    Raises:
        InputError: no such tracker.
    """
    for name in names:
        if name not in TRACKERS:
            raise InputError(f"no tracker {name!r}; there are {', '.join(TRACKERS)}")
    chosen = [name for name in dict.fromkeys(names) if name != "none"]
    for name in chosen:
        # Here, because a process that is forked in the middle of another thread's import may wait for it forever.
        with contextlib.suppress(Exception, SystemExit):
            _recorder(name)
    channels = [Channel(name, functools.partial(_start, name, folder, config, start_step)) for name in chosen]
    return Tracker(channels, say)


class Tracker:
    """The trackers of a run. No method raises, and none waits for a tracker but the first and the last.

    Args:
        channels: one a tracker.
        say: told once about each that is switched off.
    """

    def __init__(self, channels: Iterable[Channel], say: Callable[[str], None]) -> None:
        self._channels = list(channels)
        self._say = say
        deadline = time.monotonic() + OPEN_SECONDS
        for channel in self._channels:
            channel.opened.wait(max(0.0, deadline - time.monotonic()))
        self._report()

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers.

        Args:
            step: optimiser steps done so far.
            values: by tag, such as `train/loss`.
        """
        self._send("scalars", step, dict(values))

    def histograms(self, step: int, model: torch.nn.Module) -> None:
        """Record how the weights and gradients of `model`, the bare network, are spread."""
        if self._channels:
            self._send("histograms", step, histograms_of(model))

    def examples(self, step: int, examples: Iterable[Example]) -> None:
        """Record images with their true and predicted masks."""
        self._send("examples", step, list(examples))

    def close(self) -> None:
        """Bring what was recorded to its place, within a minute."""
        for channel in self._channels:
            channel.close()
        for channel in self._channels:
            channel.wait(CLOSE_SECONDS)
        self._report()
        self._channels = []

    def __enter__(self) -> Tracker:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _send(self, method: str, *arguments: Any) -> None:
        for channel in self._channels:
            channel.send(method, *arguments)
        self._report()

    def _report(self) -> None:
        """Say what is new about each, and go on with those that work."""
        for channel in self._channels:
            if channel.failure:
                self._say(f"{channel.name} tracking is off ({channel.failure}); training goes on")
            elif channel.note:
                self._say(channel.note)
                channel.note = ""
        self._channels = [channel for channel in self._channels if not channel.failure]


def _start(name: str, folder: Path, config: dict[str, Any], start_step: int) -> Recorder:
    return _recorder(name)(folder, config, start_step)


def _recorder(name: str) -> Callable[[Path, dict[str, Any], int], Recorder]:
    """Import a tracker's module, and with it its library, only where it is asked for."""
    if name == "tensorboard":
        from .tensorboard_files import TensorBoardFiles

        return TensorBoardFiles
    if name == "wandb":
        from .wandb_run import WandbRun

        return WandbRun
    from .mlflow_run import MlflowRun

    return MlflowRun
