"""Runs that are killed, resumed, and compared with one that never was."""

from __future__ import annotations

import contextlib
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import IO

import torch

__all__ = ["ForkingStarter", "Kill", "Starter", "differences", "train_killed"]

# Children are forked from one process that has imported everything: a start takes no seconds of imports.
SERVER = """
import json, os, sys
import unet_edge.data.augment, unet_edge.training.start, unet_edge.cli.train
from unet_edge.cli import main
for line in sys.stdin:
    child = os.fork()
    if not child:
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        os.dup2(2, 1)
        main(json.loads(line), prog_name="unet-edge")
    print(child, flush=True)
    print(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
"""
TIMES = {"images_per_second", "memory_bytes"}


@dataclass(frozen=True)
class Kill:
    """One kill.

    Attributes:
        moment: what was waited for.
        step: of the checkpoint that was there, None before the first one.
    """

    moment: str
    step: int | None


class Starter:
    """Starts `unet-edge` with given arguments, as often as wanted, in processes that can be killed."""

    def __enter__(self) -> Starter:
        return self

    def __exit__(self, *unused: object) -> None:
        """Leave nothing behind."""

    def start(self, arguments: Sequence[object]) -> int:
        """The new process's number."""
        command = [sys.executable, "-m", "unet_edge", *map(str, arguments)]
        self.process = subprocess.Popen(command, stdout=subprocess.DEVNULL)
        return self.process.pid

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return self.process.wait()

    def run(self, arguments: Sequence[object]) -> None:
        """Start, and wait for success."""
        self.start(arguments)
        if (code := self.wait()) != 0:
            raise RuntimeError(f"exit code {code} of {' '.join(map(str, arguments))}")


class ForkingStarter(Starter):
    """The same, without waiting for imports each time."""

    def __init__(self) -> None:
        self.server = subprocess.Popen(
            [sys.executable, "-c", SERVER], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def __exit__(self, *unused: object) -> None:
        """End the process that forks."""
        self._pipes()[0].close()
        self.server.wait()

    def start(self, arguments: Sequence[object]) -> int:
        """The new process's number."""
        orders, answers = self._pipes()
        orders.write(json.dumps([str(argument) for argument in arguments]) + "\n")
        orders.flush()
        return int(answers.readline())

    def wait(self) -> int:
        """Its exit code, negative for a signal."""
        return int(self._pipes()[1].readline())

    def _pipes(self) -> tuple[IO[str], IO[str]]:
        assert self.server.stdin
        assert self.server.stdout
        return self.server.stdin, self.server.stdout


def train_killed(
    starter: Starter, arguments: Sequence[object], run: Path, kills: int, seed: int, pause: float
) -> list[Kill]:
    """Train, killed at random moments, then to the end.

    Args:
        starter: makes the processes.
        arguments: of the new run.
        run: its folder.
        kills: how many; fewer where the run ends before.
        seed: of the moments.
        pause: seconds that may pass between a checkpoint and a kill.
    """
    choice = random.Random(seed)
    done: list[Kill] = []
    while len(done) < kills:
        resuming = (run / "last.pth").exists()
        process = starter.start(["train", "--resume", run, "--device", "cpu"] if resuming else arguments)
        moment = kill(process, run, choice, pause)
        code = starter.wait()
        if code == 0:
            return done  # it was quicker than the kill
        if code != -signal.SIGKILL:
            raise RuntimeError(f"exit code {code} after {len(done)} kills")
        done.append(Kill(moment, step_of(run / "last.pth")))
    starter.run(["train", "--resume", run, "--device", "cpu"])
    return done


def kill(process: int, run: Path, choice: random.Random, pause: float) -> str:
    """Kill -9 while a file is written, or at any moment after some checkpoints; what it waited for."""
    files, checkpoints, delay = choice.randint(0, 6), choice.randint(0, 2), choice.random() * pause
    if choice.random() < 0.5:
        seen = wait_for_file(process, run, ".tmp", files)
    else:
        seen = f"{wait_for_change(process, run / 'last.pth', checkpoints)} and {delay:.2f} s"
        time.sleep(delay)
    with contextlib.suppress(ProcessLookupError):
        os.kill(process, signal.SIGKILL)
    return seen


def step_of(path: Path) -> int | None:
    """The step that a checkpoint was written after."""
    if not path.exists():
        return None
    step: int = torch.load(path, weights_only=True)["state"]["step"]  # noqa: TID251
    return step


def wait_for_file(process: int, run: Path, part: str, leave_out: int) -> str:
    """Until a file with `part` in its name is there, after `leave_out` others; which one."""
    seen: set[str] = set()
    while alive(process):
        new = {path.name for path in (run.iterdir() if run.exists() else ()) if part in path.name} - seen
        seen |= new
        if new and len(seen) > leave_out:
            return f"writing {new.pop().lstrip('.').partition('.')[0]}"
    return "the end"


def wait_for_change(process: int, path: Path, times: int) -> str:
    """Until a file was replaced so many times."""
    stamp = path.stat().st_ino if path.exists() else None
    for _ in range(times):
        while alive(process) and (path.stat().st_ino if path.exists() else None) == stamp:
            time.sleep(0.001)
        stamp = path.stat().st_ino if path.exists() else None
    return f"{times} checkpoints"


def alive(process: int) -> bool:
    """Whether it runs; one that has ended but was not waited for does not."""
    try:
        return Path(f"/proc/{process}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except OSError:
        return False


def differences(a: Path, b: Path) -> list[str]:
    """What is not the same, bit for bit, in two runs' checkpoints and metrics; speeds and memory aside."""
    found = []
    for name in ("last.pth", "best.pth"):
        contents = [torch.load(run / name, weights_only=True) for run in (a, b)]  # noqa: TID251
        found += [f"{name}: {key}" for key in unequal(*contents)]
    metrics = [[without_times(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in (a, b)]
    if metrics[0] != metrics[1]:
        found.append(f"metrics: {metrics[0]} and {metrics[1]}")
    names = [sorted(path.name for path in run.rglob("*") if "tfevents" not in path.name) for run in (a, b)]
    if names[0] != names[1]:
        found.append(f"files: {set(names[0]) ^ set(names[1])}")
    return found


def without_times(line: str) -> dict[str, object]:
    """A record of the metrics file without what is never the same."""
    return {key: value for key, value in json.loads(line).items() if key not in TIMES}


def unequal(a: object, b: object, key: str = "") -> list[str]:
    """Keys below which two nested values differ."""
    if isinstance(a, dict) and isinstance(b, dict) and a.keys() == b.keys():
        return [found for name in a for found in unequal(a[name], b[name], f"{key}/{name}")]
    if isinstance(a, list | tuple) and type(a) is type(b) and len(a) == len(b):
        return [
            found for place, both in enumerate(zip(a, b, strict=True)) for found in unequal(*both, f"{key}/{place}")
        ]
    if isinstance(a, torch.Tensor) and isinstance(b, torch.Tensor):
        return [] if a.dtype == b.dtype and torch.equal(a, b) else [key]
    return [] if type(a) is type(b) and a == b else [key]
