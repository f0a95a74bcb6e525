"""Kill a training again and again, resume it, and compare it bit for bit with one that was never killed.

    python benchmarks/resume.py --images data/images --masks data/masks
    python benchmarks/resume.py --images data/images --masks data/masks --kills 20 --output RESUME.md \\
        -- --scale 0.25 --epochs 3 --workers 2

What stands behind `--` goes to `unet-edge train`, beside options that let everything take part that a checkpoint has
to hold. Half of the kills (SIGKILL) come while a file is written, half at a random moment.
"""

from __future__ import annotations

import argparse
import platform
import shlex
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import torch

from killing import Kill, Starter, differences, train_killed
from unet_edge_runtime.files import write_text

EVERYTHING = (
    "--device cpu --deterministic --save-every 3 --workers 1 --augment light --ema 0.99 --warmup 0.1 --optimizer adamw "
    "--validations-per-epoch 2 --early-stop 50 --scale 0.25 --base-channels 16 --bilinear --epochs 6 --track none"
)


def table(kills: Sequence[Kill], found: Sequence[str], options: Sequence[str], seconds: float) -> str:
    """The result as Markdown."""
    command = shlex.join(["python", "benchmarks/resume.py", *sys.argv[1:]])
    verdict = "bit for bit the same" if not found else f"{len(found)} differences: " + "; ".join(found)[:500]
    lines = [
        "# A run that is killed and resumed",
        "",
        f"Made by `{command}` with torch {torch.__version__} on {platform.machine()} in {seconds:.0f} s.",
        f"Options of both runs: `{shlex.join(options)}`.",
        "",
        f"After {len(kills)} kills (SIGKILL), compared with the run that was never killed - every tensor and number in "
        f"last.pth and best.pth (weights, averaged weights, optimizer, schedule, random states, scores) and every line "
        f"of metrics.jsonl but speeds and memory: **{verdict}**.",
        "",
        "| kill | came at | resumed from step |",
        "|---|---|---|",
    ]
    for number, kill in enumerate(kills, start=1):
        lines.append(f"| {number} | {kill.moment} | {'the start' if kill.step is None else kill.step} |")
    return "\n".join(lines) + "\n"


def main() -> None:
    """Train twice, once with kills, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--seed", type=int, default=0, help="of the moments")
    parser.add_argument("--pause", type=float, default=2.0, help="seconds between a checkpoint and a kill, at most")
    parser.add_argument("--output", type=Path, help="write the table to this file")
    own, further = sys.argv[1:], []
    if "--" in own:
        own, further = own[: own.index("--")], own[own.index("--") + 1 :]
    arguments = parser.parse_args(own)
    options = [*EVERYTHING.split(), *further]
    base = ["train", "--images", str(arguments.images), "--masks", str(arguments.masks), *options]
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder, Starter() as starter:
        whole, killed = Path(folder, "whole"), Path(folder, "killed")
        starter.run([*base, "--out", whole])
        kills = train_killed(
            starter, [*base, "--out", killed], killed, arguments.kills, arguments.seed, arguments.pause
        )
        found = differences(whole, killed)
    text = table(kills, found, options, time.monotonic() - started)
    print(text)
    if arguments.output:
        write_text(arguments.output, text)
    sys.exit(1 if found or len(kills) < arguments.kills else 0)


if __name__ == "__main__":
    main()
