"""Measure our backend against other runtimes and against milesial/Pytorch-UNet, and write RESULTS.md.

    python benchmarks/peers/run.py --checkpoint run/best.pth --images data/images --masks data/masks

Each peer gets an environment of its own in a cache folder, with the versions in `requirements/`; one that cannot be
installed is left out, with its reason. On Linux set PIP_EXTRA_INDEX_URL=https://download.pytorch.org/whl/cpu for the
two that need torch. Works on Linux and macOS.
"""

from __future__ import annotations

import argparse
import datetime
import shlex
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from environments import ROOT
from measuring import COMPARED, FULL, QUICK, REFERENCE, Task, measure_networks, measure_roads, versions
from models import make_model
from report import markdown
from reporting import measure_and_write
from roster import OURS, PEERS, Peer

from unet_edge.data.pairing import Pair, pair_files
from unet_edge_bench.machine import machine_facts, machine_state, physical_cores
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import cache_folder
from unet_edge_runtime.image import image_files, read_image

MILESIAL = "milesial"  # for --only
SIZES = ["320x480", "32@640x960"]


def main(arguments: list[str] | None = None) -> int:
    """Do everything; 0, or 1 with one line of what is wrong."""
    options = _options(arguments)
    return measure_and_write(lambda: measure(options), markdown, options.markdown, options.output)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """Everything that RESULTS.md tells, as plain data.

    Raises:
        UnetEdgeError: the checkpoint or the images cannot be used, or the reference cannot run.
    """
    cache = options.cache or cache_folder() / "peers"
    peers = _chosen(options.only)
    images, pairs = _photos(options.images, options.masks)
    height, width = read_image(images[0]).shape[:2]
    task = Task(images, pairs, QUICK if options.quick else FULL, options.threads, _say)
    task.prepare(peers, cache)
    for number, wanted in enumerate(options.sizes):
        model = make_model(wanted, options.checkpoint, (height, width), images, cache)
        measure_networks(task, model, peers)
        if options.only is None or MILESIAL in options.only:
            measure_roads(task, model, brief=number > 0)
    return {
        "schema": "unet-edge-peers/1",
        "created": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "command": shlex.join(["python", "benchmarks/peers/run.py", *_shown(options)]),
        "machine": {**machine_facts(), **machine_state()},
        "threads": options.threads,
        "origin": f"Timed on {images[0].name} ({width}x{height}), compared on {len(images)} images",
        "versions": versions(peers, task),
        **task.found,
    }


def _photos(folder: Path, masks: Path | None) -> tuple[list[Path], list[Pair]]:
    """`COMPARED` photos of one size, spread over the folder, and all pairs, if there are masks."""
    images, pairs = image_files(folder), list[Pair]()
    if masks:
        pairs, problems = pair_files(folder, masks)
        if problems:
            raise InputError(problems[0])
        images = [pair.image for pair in pairs]
    size = read_image(images[0]).shape
    images = [images[number] for number in np.linspace(0, len(images) - 1, min(len(images), COMPARED)).astype(int)]
    odd = next((image for image in images if read_image(image).shape != size), None)
    if odd:
        raise InputError(f"{odd}: has another size than {images[0].name}: give a folder of photos of one size")
    return images, pairs


def _chosen(only: Sequence[str] | None) -> list[Peer]:
    unknown = sorted(set(only or ()) - set(_names()))
    if unknown:
        raise InputError(f"no peer {unknown[0]!r}: --only takes {', '.join(_names())}")
    return [peer for peer in PEERS if only is None or peer.name in {*only, OURS, REFERENCE}]


def _shown(options: argparse.Namespace) -> list[str]:
    """The options again, folders by their last name alone."""
    given: dict[str, Any] = {"checkpoint": options.checkpoint, "images": options.images, "masks": options.masks}
    shown = [word for name, path in given.items() if path for word in (f"--{name}", path.name)]
    shown += ["--sizes", *options.sizes, "--threads", str(options.threads)]
    shown += ["--only", ",".join(options.only)] if options.only else []
    return shown + (["--quick"] if options.quick else [])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--checkpoint", type=Path, required=True, help="a trained network")
    parser.add_argument("--images", type=Path, required=True, help="folder of photos of one size")
    parser.add_argument("--masks", type=Path, help="folder of their masks: for Dice")
    parser.add_argument(
        "--sizes",
        nargs="+",
        help="input sizes HxW; WIDTH@HxW widens the network to that many base channels "
        f"(default: {' '.join(SIZES)}, with --quick the first)",
    )
    parser.add_argument("--threads", type=int, default=physical_cores(), help="of every runtime")
    parser.add_argument("--only", type=lambda text: text.split(","), help="some of the peers: " + ",".join(_names()))
    parser.add_argument("--quick", action="store_true", help="fewer launches and sizes: wider intervals")
    parser.add_argument("--cache", type=Path, help="folder of environments and converted models")
    parser.add_argument("--output", type=Path, help="file for the raw results (JSON)")
    parser.add_argument("--markdown", type=Path, default=ROOT / "benchmarks" / "RESULTS.md")
    options = parser.parse_args(arguments)
    options.sizes = options.sizes or (SIZES[:1] if options.quick else SIZES)
    return options


def _names() -> list[str]:
    return [*(peer.name for peer in PEERS), MILESIAL]


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
