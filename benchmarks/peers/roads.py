"""Whole roads against milesial's: photo to mask file, process start left out and included."""

from __future__ import annotations

import contextlib
import os
import sys
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from environments import call, paths
from PIL import Image
from roster import Model

from unet_edge_bench.process import THREAD_VARIABLES, Child
from unet_edge_bench.stats import median_interval, verdict
from unet_edge_bench.timing.campaign import rotated

__all__ = ["Effort", "different_pixels", "mask_road", "start_road"]

TIMEOUT = 600.0

Turns = dict[str, list[list[float]]]  # side -> launches -> rounds -> milliseconds an image


@dataclass(frozen=True)
class Effort:
    """How much to measure.

    Attributes:
        launches: new processes for each side.
        rounds: turns of each side in a launch.
        images: timed in a turn.
    """

    launches: int
    rounds: int
    images: int


def mask_road(model: Model, photos: Sequence[Path], threads: int, effort: Effort) -> dict[str, Any]:
    """Photo to mask file in a process that runs already; the sides take turns."""
    files = [os.fspath(photo) for photo in photos]
    sides = {
        "ours": {"road": "our masks", "model": os.fspath(model.onnx), "photos": files, "threads": threads},
        "milesial": {
            "road": "milesial masks",
            "model": os.fspath(model.checkpoint),
            "photos": files,
            "threads": threads,
        },
    }
    what = f"photo to mask file, {model.name}, in a running process"
    return _comparison(what, _alternate(sides, threads, effort, untimed=2))


def start_road(model: Model, photo: Path, threads: int, launches: int) -> dict[str, Any]:
    """The same with the start of the process: one command for one photo."""
    turns: Turns = {"ours": [], "milesial": []}
    with tempfile.TemporaryDirectory() as folder:
        commands = _commands(model, [photo], Path(folder))
        for command in commands.values():
            _seconds(command, threads)  # files come from memory from here on, for both
        for launch in range(launches):
            for side in rotated(list(commands), launch):
                turns[side].append([_seconds(commands[side], threads) * 1000])
    return _comparison(f"photo to mask file, {model.name}, process start included", turns)


def different_pixels(model: Model, photos: Sequence[Path], threads: int) -> float:
    """Share of pixels in which the mask files of the two sides differ."""
    with tempfile.TemporaryDirectory() as folder:
        for command in _commands(model, photos, Path(folder)).values():
            _seconds(command, threads)
        shares = []
        for photo in photos:
            ours, theirs = (
                np.asarray(Image.open(Path(folder) / side / f"{photo.stem}_OUT.png")) for side in ("ours", "milesial")
            )
            shares.append(float((ours != theirs).mean()))
    return float(np.mean(shares))


def _commands(model: Model, photos: Sequence[Path], folder: Path) -> dict[str, list[str]]:
    for side in ("ours", "milesial"):
        (folder / side).mkdir()
    files = [os.fspath(photo) for photo in photos]
    script = os.fspath(Path(__file__).with_name("milesial.py"))
    return {
        "ours": [sys.executable, "-m", "unet_edge_runtime", os.fspath(model.onnx), *files, "-o", f"{folder}/ours"],
        "milesial": [sys.executable, script, os.fspath(model.checkpoint), f"{folder}/milesial", *files],
    }


def _alternate(sides: dict[str, dict[str, Any]], threads: int, effort: Effort, untimed: int) -> Turns:
    turns: Turns = {side: [] for side in sides}
    env = {"PYTHONPATH": paths("")}
    for launch in range(effort.launches):
        with contextlib.ExitStack() as stack:
            children = {}
            for side in rotated(list(sides), launch):
                children[side] = stack.enter_context(Child("road_worker", threads, env=env))
                children[side].ask(TIMEOUT, do="open", **sides[side])
                turns[side].append([])
            for number in range(effort.rounds):
                for side in rotated(list(children), number):
                    answer = children[side].ask(TIMEOUT, do="turn", untimed=untimed, timed=effort.images)
                    turns[side][-1].append(answer["ms"])
    return turns


def _comparison(what: str, turns: Turns) -> dict[str, Any]:
    ratio, word = verdict(turns["milesial"], turns["ours"])
    sides = {side: {"turns_ms": values, **_plain(median_interval(values))} for side, values in turns.items()}
    return {"what": what, "sides": sides, "ratio": _plain(ratio), "verdict": word}


def _plain(estimate: Any) -> dict[str, Any]:
    return estimate.to_dict() if estimate else {"median": None, "low": None, "high": None}


def _seconds(command: list[str], threads: int) -> float:
    started = time.perf_counter()
    call(command, {**dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONPATH": paths("")})
    return time.perf_counter() - started
