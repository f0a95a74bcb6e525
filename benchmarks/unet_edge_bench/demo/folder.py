"""The demo's folder: what lies where, whether it is ours, and how long each step took."""

from __future__ import annotations

import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import InputError

__all__ = ["RESULTS_VERSION", "DemoFolder", "Step", "Steps"]

RESULTS_VERSION = 1

_MARKER = ".unet-edge-demo"
_NOTE = "This folder was made by `unet-edge demo`, which may replace anything in it.\n"
_ORDER = ("data", "train", "export", "predict", "time")


class DemoFolder:
    """Names of everything in the demo's folder.

    Args:
        path: the folder; `claim` makes it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.sample = path / "sample"
        self.run = path / "run"
        self.predictions = path / "predictions"
        self.results = path / "results.json"
        self.page = path / "index.html"

    def claim(self, force: bool) -> None:
        """Make the folder, or find the one that the demo made before; `force` empties that.

        Raises:
            InputError: it holds something else, or cannot be made.
        """
        marker = self.path / _MARKER
        try:
            if self.path.exists() and not marker.is_file() and any(self.path.iterdir()):
                raise InputError(f"{self.path} holds something else than a demo: choose another folder with -o")
            if force:
                self._clear()
            self.path.mkdir(parents=True, exist_ok=True)
            marker.write_text(_NOTE, encoding="utf-8")
        except OSError as error:
            raise InputError(f"{self.path} cannot be the demo's folder ({error}): choose another with -o") from None

    def previous(self) -> dict[str, Any]:
        """What the last complete run found; empty where there was none, or of another version."""
        try:
            results = json.loads(self.results.read_text(encoding="utf-8"))
        except (OSError, ValueError):
            return {}
        return results if isinstance(results, dict) and results.get("version") == RESULTS_VERSION else {}

    def _clear(self) -> None:
        for folder in (self.sample, self.run, self.predictions):
            shutil.rmtree(folder, ignore_errors=True)
        for file in (self.results, self.page):
            file.unlink(missing_ok=True)


@dataclass
class Step:
    """One step: how long it took in seconds, or that there was nothing to do."""

    seconds: float | None = None
    reused: bool = False


class Steps:
    """Times the steps; what is used again keeps the time that it took when it was made.

    Args:
        previous: results of the run before.
    """

    def __init__(self, previous: dict[str, Any]) -> None:
        self._before = {step["name"]: step["seconds"] for step in previous.get("steps", [])}
        self._steps: dict[str, Step] = {}

    @contextmanager
    def __call__(self, name: str) -> Iterator[Step]:
        """Time what happens inside, which may set `reused`."""
        step = self._steps[name] = Step()
        started = time.monotonic()
        yield step
        step.seconds = time.monotonic() - started

    def to_dict(self) -> list[dict[str, Any]]:
        """Plain data for JSON: name, seconds (None when unknown) and reused, in the order of the road."""
        rows = []
        for name in _ORDER:
            step = self._steps.get(name, Step(reused=True))
            rows.append({"name": name, "seconds": self._before.get(name) if step.reused else step.seconds,
                         "reused": step.reused})  # fmt: skip
        return rows
