"""How a training run shows itself: a bar on a terminal, plain lines elsewhere, all on standard error."""

from __future__ import annotations

import os
import sys
import time
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any, TextIO

import click

from unet_edge.training.reporter import Reporter

__all__ = ["ConsoleReporter", "StatusLine"]

REDRAW_SECONDS = 0.1
LINE_SECONDS = 60.0  # between two lines of a long epoch where there is no terminal
PAST = 0.98  # weight of the past in the loss that is shown: about fifty steps
WINDOW = 100  # steps over which the speed is taken
BAR = (8, 30)  # characters: narrower says nothing, wider helps nobody
CLASSES = 12  # named in the line of a validation


class StatusLine:
    """The last line of a terminal, drawn over and over; nothing at all where `stream` is no terminal."""

    def __init__(self, stream: TextIO) -> None:
        self.stream = stream
        self.is_terminal = stream.isatty()
        self._shown = 0

    def draw(self, parts: list[str], share: float) -> None:
        """Show `parts`, the most important first, and a bar; what does not fit is left out."""
        if not self.is_terminal:
            return
        room = self._columns() - 1  # a character in the last column makes some terminals go to the next line
        while len(parts) > 1 and len("  ".join(parts)) > room:
            parts = parts[:-1]
        text = "  ".join(parts)[:room]
        width = min(room - len(text) - 4, BAR[1])
        if width >= BAR[0]:
            full = round(share * width)
            text = "  ".join([parts[0], f"[{'#' * full}{'-' * (width - full)}]", *parts[1:]])
        self.stream.write("\r" + text.ljust(min(self._shown, room)))
        self.stream.flush()
        self._shown = len(text)

    def clear(self) -> None:
        """Leave the line empty, with the cursor at its start."""
        if self._shown:
            self.stream.write("\r" + " " * min(self._shown, self._columns() - 1) + "\r")
            self.stream.flush()
            self._shown = 0

    def _columns(self) -> int:
        try:
            return os.get_terminal_size(self.stream.fileno()).columns or 80
        except (OSError, ValueError):
            return 80


class Phase:
    """How far an epoch or a validation is.

    Args:
        label: what it is.
        images: to do.
        now: when it starts, in seconds.
    """

    def __init__(self, label: str, images: int, now: float) -> None:
        self.label, self.images = label, images
        self.done, self.losses, self.steps = 0, 0.0, 0
        self._seen: deque[tuple[float, int]] = deque([(now, 0)], WINDOW)

    def advance(self, images: int, now: float) -> None:
        """So many images more are done."""
        self.done += images
        self._seen.append((now, self.done))

    def resume(self, now: float) -> None:
        """Go on after a pause, which does not count for the speed."""
        self._seen.clear()
        self._seen.append((now, self.done))

    @property
    def speed(self) -> float:
        """Images a second over the last steps; 0 while nothing is known."""
        (start, before), (end, after) = self._seen[0], self._seen[-1]
        return (after - before) / (end - start) if end > start else 0.0

    @property
    def share(self) -> float:
        """Done, 0..1."""
        return min(1.0, self.done / self.images) if self.images else 1.0

    def seconds_left(self) -> float | None:
        """By the speed; None while nothing is known."""
        return max(0, self.images - self.done) / self.speed if self.speed else None


class ConsoleReporter(Reporter):
    """A bar an epoch on a terminal; elsewhere a line an epoch, and one a minute in between.

    Args:
        stream: where to; standard error if not given.
        clock: seconds that only grow.
    """

    def __init__(self, stream: TextIO | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._line = StatusLine(stream or sys.stderr)
        self._clock = clock
        self._told = clock()
        self._phase = Phase("", 0, clock())
        self._epoch = self._epochs = self._whole = 0
        self._loss, self._weight = 0.0, 0.0
        self._dice: float | None = None
        self._validation = 0.0  # seconds of the validations since the epoch began
        self._validations = 0.0  # seconds that those of one epoch take

    @contextmanager
    def epoch(
        self, epoch: int, epochs: int, images: int, whole: int | None = None, before: tuple[int, float] = (0, 0.0)
    ) -> Iterator[None]:
        """A bar over the images of one epoch, then a line with loss and speed."""
        self._epoch, self._epochs, self._whole = epoch, epochs, whole or images
        self._validations, self._validation = self._validation or self._validations, 0.0
        started = self._clock()
        with self._showing(Phase(f"epoch {epoch}/{epochs}", images, started)) as phase:
            phase.steps, phase.losses = before
            yield
        seconds = self._clock() - started
        speed = phase.done / max(seconds - self._validation, 1e-9)
        loss = phase.losses / max(1, phase.steps)
        self.note(f"{phase.label}: loss {loss:.4f}, {speed:.1f} images/s, {_duration(seconds)}")

    def step(self, images: int, loss: float, learning_rate: float, dice: float | None = None) -> None:
        """Move the bar."""
        self._loss = PAST * self._loss + (1 - PAST) * loss
        self._weight = PAST * self._weight + (1 - PAST)  # what the zero at the start still weighs is taken out by it
        self._dice = self._dice if dice is None else dice
        self._phase.losses, self._phase.steps = self._phase.losses + loss, self._phase.steps + 1
        self._advance(images)

    @contextmanager
    def validating(self, images: int) -> Iterator[Callable[..., None]]:
        """A bar over the validation images."""
        started = self._clock()
        with self._showing(Phase("validation", images, started)):
            yield lambda *_: self._advance(1)
        self._validation += self._clock() - started

    def validation(self, epoch: int, scores: dict[str, Any], is_best: bool) -> None:
        """The scores, as one line."""
        self._dice = scores["dice"]
        each = [f"{c['name']} {_number(c['dice'])}" for c in scores["classes"]]
        more = f", and {len(each) - CLASSES} more" if len(each) > CLASSES else ""
        best = " (best so far)" if is_best else ""
        self.note(
            f"  validation: Dice {_number(scores['dice'])}, IoU {_number(scores['iou'])}{best}"
            f"  [{', '.join(each[:CLASSES])}{more}]"
        )

    def note(self, text: str) -> None:
        """A line of its own, above the bar."""
        self._line.clear()
        click.echo(text, file=self._line.stream)
        self._told = self._clock()
        if self._phase.label:
            self._line.draw(self._parts(), self._phase.share)

    @contextmanager
    def _showing(self, phase: Phase) -> Iterator[Phase]:
        outer, self._phase = self._phase, phase
        self._line.draw([phase.label], phase.share)
        try:
            yield phase
        finally:
            self._phase = outer
            outer.resume(self._clock())
            self._line.clear()  # an error's message begins on a line of its own

    def _advance(self, images: int) -> None:
        now = self._clock()
        self._phase.advance(images, now)
        if self._line.is_terminal and now - self._told >= REDRAW_SECONDS:
            self._told = now
            self._line.draw(self._parts(), self._phase.share)
        elif not self._line.is_terminal and now - self._told >= LINE_SECONDS:
            self.note("  " + ", ".join(self._parts()))

    def _parts(self) -> list[str]:
        """What is known, the most important first."""
        phase, left = self._phase, self._phase.seconds_left()
        parts = [f"{phase.label} {phase.share:4.0%}"]
        if left is not None:
            parts.append(f"{_duration(left)} left")
        if phase.steps and self._weight:
            parts.append(f"loss {self._loss / self._weight:.4f}")
            parts += [] if self._dice is None else [f"Dice {self._dice:.4f}"]
        if left is not None and phase.steps and self._epoch < self._epochs:
            epochs = self._epochs - self._epoch
            rest = left + epochs * self._whole / phase.speed + (epochs + 1) * self._validations
            parts.append(f"run {_duration(rest)} left")
        if phase.speed:
            parts.append(f"{phase.speed:.1f} images/s")
        return parts + _memory()


def _memory() -> list[str]:
    """Memory that torch holds on the graphics processor, or else of this process; nothing where it cannot be told."""
    torch = sys.modules.get("torch")
    if torch is not None and torch.cuda.is_available() and torch.cuda.is_initialized():
        return [f"{_size(torch.cuda.memory_reserved())} GPU"]
    if torch is not None and torch.backends.mps.is_available() and (held := torch.mps.driver_allocated_memory()):
        return [f"{_size(held)} GPU"]
    if sys.platform == "linux":
        with open("/proc/self/statm", encoding="ascii") as stream:  # noqa: PTH123 - no file of ours
            return [_size(int(stream.read().split()[1]) * os.sysconf("SC_PAGE_SIZE"))]
    if sys.platform == "darwin":
        import resource

        return [f"{_size(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss)} at most"]
    return []


def _size(size: int) -> str:
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.0f} MB"


def _duration(seconds: float) -> str:
    """As 45s, 3:05 or 2:03:05."""
    minutes, seconds = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    if hours:
        return f"{hours}:{minutes:02d}:{seconds:02d}"
    return f"{minutes}:{seconds:02d}" if minutes else f"{seconds}s"


def _number(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"
