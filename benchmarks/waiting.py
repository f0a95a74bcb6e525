"""Training with OpenMP threads that spin or sleep while they wait, alone and beside a busy program; writes WAITING.md.

    python benchmarks/waiting.py --images images --masks masks

Each training is a process of its own. In a round all of them take turns, in an order that changes; the ratio is taken
round by round.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch

from unet_edge_bench.machine import machine_facts, machine_text
from unet_edge_bench.stats import Estimate, median_interval, paired_ratio
from unet_edge_bench.timing.campaign import rotated
from unet_edge_runtime.files import write_text

# `train` sets the policy unless torch, and with it OpenMP, is loaded already.
SPINNING = ("spinning, OpenMP's default", "import torch; from unet_edge.cli import main; main()")
SLEEPING = ("sleeping, as `unet-edge train` sets it", "from unet_edge.cli import main; main()")
BUSY = "while True: pass"


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--scale", type=float, default=0.25)
    parser.add_argument("--fraction", type=float, default=0.05, help="share of the images")
    parser.add_argument("--base-channels", type=int, default=16)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--busy", type=int, default=1, help="busy programs beside the training, a core each")
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("WAITING.md"))
    options = parser.parse_args()
    write_text(options.out, "\n".join(page(options, measure(options))) + "\n")
    print(options.out)


Times = dict[tuple[int, str], list[list[float]]]
"""Seconds an image by the number of busy programs and the name of the way, one list a round."""


def measure(options: argparse.Namespace) -> Times:
    """All ways, round by round."""
    ways = [(busy, way) for busy in (0, options.busy) for way in (SPINNING, SLEEPING)]
    found: Times = {(busy, name): [] for busy, (name, _) in ways}
    for turn in range(options.rounds):
        for busy, (name, code) in rotated(ways, turn):
            with beside(busy):
                found[busy, name].append([1 / images_a_second(code, options)])
    return found


def images_a_second(code: str, options: argparse.Namespace) -> float:
    """Of the second epoch of a training, when all images are prepared."""
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    with tempfile.TemporaryDirectory() as folder:
        run = Path(folder) / "run"
        words = [
            *("train", "--images", options.images, "--masks", options.masks, "--out", run, "--epochs", 2),
            *("--scale", options.scale, "--fraction", options.fraction, "--base-channels", options.base_channels),
            *("--bilinear", "--batch-size", 4, "--amp", "--track", "none", "--device", "cpu"),
        ]
        command = [sys.executable, "-c", code, *map(str, words)]
        subprocess.run(command, env=environment, check=True, capture_output=True)
        records = [json.loads(line) for line in (run / "metrics.jsonl").read_text(encoding="utf-8").splitlines()]
    return [float(record["images_per_second"]) for record in records if record["event"] == "train"][-1]


@contextlib.contextmanager
def beside(count: int) -> Iterator[None]:
    """So many programs that keep a core busy each."""
    programs = [subprocess.Popen([sys.executable, "-c", BUSY]) for _ in range(count)]
    try:
        yield
    finally:
        for program in programs:
            program.kill()
            program.wait()


def page(options: argparse.Namespace, found: Times) -> list[str]:
    """The Markdown lines."""
    facts = machine_facts()
    lines = [
        "# Waiting threads while training",
        "",
        f"Made by `python benchmarks/waiting.py --images images --masks masks --scale {options.scale:g} "
        f"--rounds {options.rounds} --busy {options.busy}`: {machine_text(facts)}, {torch.get_num_threads()} threads, "
        f"torch {torch.__version__}. Second epoch of a network of {options.base_channels} base channels, `--amp`; "
        f"medians over {options.rounds} rounds, intervals of 95 %.",
        "",
        "| beside | threads wait | ms an image | times as fast as spinning |",
        "|---|---|---|---|",
    ]
    for (busy, name), seconds in found.items():
        base = found[busy, SPINNING[0]]
        ratio = "" if name == SPINNING[0] else shown(paired_ratio(base, seconds), 1)
        lines.append(f"| {beside_words(busy)} | {name} | {shown(median_interval(seconds), 1000)} | {ratio} |")
    return lines


def beside_words(count: int) -> str:
    """What runs beside the training."""
    return {0: "nothing", 1: "one busy program"}.get(count, f"{count} busy programs")


def shown(estimate: Estimate | None, factor: float) -> str:
    """A median and its interval, where there are rounds enough for one."""
    if estimate is None:
        return "?"
    median = f"{estimate.median * factor:.3g}"
    if estimate.low is None or estimate.high is None:
        return median
    return f"{median} [{estimate.low * factor:.3g}–{estimate.high * factor:.3g}]"


if __name__ == "__main__":
    main()
