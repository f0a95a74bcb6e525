"""What it costs to load a training image, and what each choice gains; writes LOADING.md.

    python benchmarks/loading.py --images images --masks masks --scale 0.25 0.5

Every way loads the same items, turn by turn, in an order that changes. Times are processor time of one thread, so
that another program on the machine disturbs them little; the files lie in the system's page cache after the first
round, which is left out.
"""

from __future__ import annotations

import argparse
import os
import platform
import random
import statistics
import tempfile
import time
from collections.abc import Callable
from datetime import date
from pathlib import Path

import numpy as np
import PIL
import torch

from peers.milesial import _Pairs as MilesialPairs
from unet_edge.checkpoint import class_infos
from unet_edge.data.augment import LEVELS, Augmenter
from unet_edge.data.dataset import SegmentationDataset
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.data.prepared import Preparation, open_store
from unet_edge.data.scan import scan_pairs
from unet_edge_bench.machine import machine_facts
from unet_edge_bench.stats import Estimate, median_interval, paired_ratio
from unet_edge_runtime.files import write_text
from unet_edge_runtime.spec import ModelSpec

BASE = "milesial's way"
Load = Callable[[int, int], object]
"""Loads the item of an index in an epoch."""


def main() -> None:
    """Measure and write the page."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--scale", type=float, nargs="+", default=[0.25, 0.5])
    parser.add_argument("--count", type=int, default=24, help="images to load")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--out", type=Path, default=Path(__file__).with_name("LOADING.md"))
    options = parser.parse_args()
    torch.set_num_threads(1)
    every, _ = pair_files(options.images, options.masks)
    pairs = every[:: max(1, len(every) // options.count)][: options.count]
    scan = scan_pairs(pairs)
    page = [*introduction(options, pairs)]
    for scale in options.scale:
        spec = ModelSpec(scan.channels, class_infos(scan.classes), len(scan.classes), 16, scale=scale)
        with tempfile.TemporaryDirectory() as folder:
            os.environ["UNET_EDGE_CACHE"] = folder
            page += section(spec, pairs, options.rounds)
    write_text(options.out, "\n".join(page) + "\n")


def section(spec: ModelSpec, pairs: list[Pair], rounds: int) -> list[str]:
    """The part of the page for one scale."""
    ways = make_ways(spec, pairs)
    times = measure(ways, len(pairs), rounds)
    exact, fast = (Preparation(pairs, spec, quick) for quick in (False, True))
    height, width, _ = exact.make(0).shape
    lines = [
        f"## Scale {spec.scale:g}: {height}x{width}",
        "",
        "| way | ms an image | milesial's way = 1 |",
        "|---|---|---|",
    ]
    for name, found in times.items():
        ratio = paired_ratio(found, times[BASE])
        lines.append(f"| {name} | {shown(median_interval(found))} | {'' if name == BASE else shown(ratio)} |")
    differences = [
        np.abs(exact.make(index).astype(int) - fast.make(index).astype(int)) for index in range(min(8, len(pairs)))
    ]
    mean = statistics.mean(float(d[:, :, :-1].mean()) for d in differences)
    largest = max(int(d[:, :, :-1].max()) for d in differences)
    labels = sum(int((d[:, :, -1] > 0).sum()) for d in differences)
    return [
        *lines,
        "",
        f"Fast decoding changes pixels by {mean:.2f} grey levels of 255 on average, by {largest} at most (at edges), "
        f"and {labels} labels ({len(differences)} images).",
        "",
    ]


def make_ways(spec: ModelSpec, pairs: list[Pair]) -> dict[str, Load]:
    """All ways to load an item, by name."""

    def ours(cache: str, level: str = "none", fast: bool = False, crop: tuple[int, int] | None = None) -> Load:
        preparation = Preparation(pairs, spec, fast)
        augmenter = Augmenter(spec, level, "horizontal", crop)
        dataset = SegmentationDataset(preparation, augmenter, 0, open_store(cache, preparation))
        return lambda index, epoch: dataset[index, epoch, True]

    suffix = pairs[0].mask.stem.removeprefix(pairs[0].image.stem)
    values = [int(info.value) for info in spec.classes]  # type: ignore[arg-type]
    theirs = MilesialPairs(
        pairs[0].image.parent, pairs[0].mask.parent, [pair.image.stem for pair in pairs], suffix, spec.scale, values
    )
    ways: dict[str, Load] = {BASE: lambda index, epoch: theirs[index]}
    ways["ours, no cache"] = ours("none")
    ways["ours, no cache, fast decoding"] = ours("none", fast=True)
    ways["ours, cache in memory"] = ours("memory")
    ways["ours, cache on disk"] = ours("disk")
    for level in LEVELS:
        if level != "none":
            ways[f"ours, cache in memory, augmentation {level}"] = ours("memory", level)
    ways["ours, cache in memory, augmentation strong, crop 256x256"] = ours("memory", "strong", crop=(256, 256))
    return ways


def measure(ways: dict[str, Load], count: int, rounds: int) -> dict[str, list[list[float]]]:
    """Milliseconds an item, by way and round; the first round, which fills the caches, is left out."""
    found: dict[str, list[list[float]]] = {name: [] for name in ways}
    order = random.Random(0)
    for turn in range(rounds + 1):
        for name in ways:
            found[name].append([])
        for index in range(count):
            for name in order.sample(list(ways), len(ways)):
                started = time.thread_time_ns()
                ways[name](index, turn)
                found[name][-1].append((time.thread_time_ns() - started) / 1e6)
    return {name: times[1:] for name, times in found.items()}


def shown(estimate: Estimate | None) -> str:
    """A median and its interval."""
    if estimate is None or estimate.low is None or estimate.high is None:
        return "?"
    return f"{estimate.median:.2f} [{estimate.low:.2f}–{estimate.high:.2f}]"


def introduction(options: argparse.Namespace, pairs: list[Pair]) -> list[str]:
    """What was measured, where and how."""
    scales = " ".join(f"{scale:g}" for scale in options.scale)
    return [
        "# Loading a training image",
        "",
        f"Made by `python benchmarks/loading.py --images images --masks masks --scale {scales}` on {date.today()}: "
        f"{machine_facts()['processor']}, Python {platform.python_version()}, Pillow {PIL.__version__}, "
        f"torch {torch.__version__}.",
        "",
        f"{len(pairs)} pairs ({pairs[0].image.suffix} and {pairs[0].mask.suffix}), {options.rounds} rounds; processor "
        "time of one thread, median with an interval of 95 %. Reading from the page cache is included, network input "
        "comes out. All ways take turns on the same items.",
        "",
    ]


if __name__ == "__main__":
    main()
