"""One tracker in a thread of its own: whatever it does, training neither waits nor fails."""

from __future__ import annotations

import queue
import re
import threading
from collections.abc import Callable
from typing import Any, Protocol

from unet_edge_runtime.errors import UnetEdgeError

from .values import Example, Histogram

__all__ = ["Channel", "Recorder"]

WAITING = 1000  # calls that may wait for a tracker before it counts as stuck


class Recorder(Protocol):
    """One tracker's library behind what is recorded. Any of these may raise, and may take its time.

    Attributes:
        note: where to look at what is recorded, as one line.
    """

    note: str

    def scalars(self, step: int, values: dict[str, float]) -> None:
        """Record numbers."""

    def histograms(self, step: int, histograms: dict[str, Histogram]) -> None:
        """Record the spread of weights and gradients."""

    def examples(self, step: int, examples: list[Example]) -> None:
        """Record pictures."""

    def flush(self) -> None:
        """Send what was kept back to be sent with more: nothing more waits."""

    def close(self) -> None:
        """Bring everything to its place."""


class Channel:
    """Calls a recorder, in order, in its own thread.

    Args:
        name: of the tracker, for messages.
        start: makes the recorder; called in the thread, because it may wait for a network.

    Attributes:
        note: the recorder's, once it is made.
        failure: why nothing more is recorded, as one line; empty while all is well.
        opened: set when the recorder is made, or has failed.
    """

    def __init__(self, name: str, start: Callable[[], Recorder]) -> None:
        self.name = name
        self.note = self.failure = ""
        self.opened = threading.Event()
        self._calls: queue.Queue[tuple[str, tuple[Any, ...]]] = queue.Queue(WAITING)
        # A daemon: a tracker that hangs must not keep a finished run alive.
        self._thread = threading.Thread(target=self._work, args=(start,), name=f"tracking-{name}", daemon=True)
        self._thread.start()

    def send(self, method: str, *arguments: Any) -> None:
        """Have a method of the recorder called; returns at once."""
        try:
            self._calls.put_nowait((method, arguments))
        except queue.Full:
            self.failure = self.failure or f"it is stuck, {WAITING} records wait for it"

    def close(self) -> None:
        """Ask it to finish; `wait` waits until it has."""
        self.send("close")

    def wait(self, seconds: float) -> None:
        """Wait until the recorder is closed; longer than `seconds` is a failure."""
        self._thread.join(seconds)
        if self._thread.is_alive():
            self.failure = self.failure or f"it did not finish within {seconds:g} seconds"

    def _work(self, start: Callable[[], Recorder]) -> None:
        try:
            recorder = start()
            self.note = recorder.note
            self.opened.set()
            while not self.failure:
                method, arguments = self._calls.get()
                getattr(recorder, method)(*arguments)
                if method == "close":
                    break
                if self._calls.empty():
                    recorder.flush()
        # BaseException, because libraries end the process in places where they should raise.
        except BaseException as error:
            self.failure = self.failure or _reason(error)
        finally:
            self.opened.set()


def without_password(text: str) -> str:
    """Addresses without the user and password that they may carry."""
    return re.sub(r"//[^/@\s]*@", "//", text)


def _reason(error: BaseException) -> str:
    """An exception as one line."""
    if isinstance(error, UnetEdgeError):
        return str(error)
    lines = without_password(str(error)).strip().splitlines()
    return f"{type(error).__name__}: {lines[0][:200]}" if lines else type(error).__name__
