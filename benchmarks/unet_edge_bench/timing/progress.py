"""Progress for people: a bar with the time that is left, on a terminal only."""

from __future__ import annotations

import sys
import time
from typing import IO

__all__ = ["Progress"]

_WIDTH = 24


class Progress:
    """Draws one line again and again. Call it with steps done, steps in all, and what comes next.

    Args:
        stream: where to; nothing is drawn where that is no terminal.
    """

    def __init__(self, stream: IO[str] | None = None) -> None:
        self.stream = stream or sys.stderr
        self.shown = self.stream.isatty()
        self.total, self.started, self.length = 0, 0.0, 0

    def __call__(self, done: int, total: int, label: str) -> None:
        """Draw the line."""
        if not self.shown:
            return
        if done == 0 or total != self.total:
            self.total, self.started = total, time.monotonic()
        filled = _WIDTH * done // max(total, 1)
        line = f"[{'#' * filled}{'-' * (_WIDTH - filled)}] {done}/{total} {self._left(done, total)} {label}"[:110]
        self.stream.write(f"\r{line:<{self.length}}")
        self.stream.flush()
        self.length = len(line)

    def clear(self) -> None:
        """Remove the line, so that others can be written."""
        if self.shown and self.length:
            self.stream.write(f"\r{'':<{self.length}}\r")
            self.stream.flush()
            self.length = 0

    def _left(self, done: int, total: int) -> str:
        if not done:
            return "     "
        seconds = round((time.monotonic() - self.started) / done * (total - done))
        return f"{seconds // 60:2}:{seconds % 60:02}"
