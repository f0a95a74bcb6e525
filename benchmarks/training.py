"""Images a second of our training against milesial's, in turns in one run, and write TRAINING.md.

    python benchmarks/training.py --images data/images --masks data/masks
    python benchmarks/training.py --images data/images --masks data/masks --device cuda --batch 4 \\
        --settings 64@0.5:64 16@0.5:256 --ours fp32 auto auto+compile --output TRAINING-cuda.md

A setting is WIDTH@SCALE:IMAGES, the last an epoch's. Ours is `unet_edge.train` with the recipe "seed": milesial's
optimizer, loss and batch, no augmentation. A variant of ours joins parts by "+": a precision (fp32, bf16, fp16, auto),
compile, draft (JPEG draft decoding), uncached.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from peers.reporting import measure_and_write
from training_report import markdown
from unet_edge.checkpoint import save_checkpoint
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.training.setup import DataConfig, NetworkConfig, gather, make_model, make_spec
from unet_edge_bench.machine import machine_facts, machine_state, physical_cores
from unet_edge_bench.process import Child
from unet_edge_bench.timing.campaign import rotated
from unet_edge_runtime.errors import BackendError, DatasetError, InputError

ROOT = Path(__file__).parents[1]
TIMEOUT = 3600.0  # seconds for an epoch
SETTINGS = ["16@0.25:24", "16@0.5:8", "64@0.25:4", "64@0.5:2"]
OURS = ["fp32", "auto", "fp32+compile"]
MILESIAL = ["fp32", "amp"]


@dataclass(frozen=True)
class Setting:
    """A network and the images of an epoch.

    Attributes:
        width: channels of the first block.
        scale: of the images.
        images: an epoch's.
    """

    width: int
    scale: float
    images: int

    @classmethod
    def parse(cls, text: str) -> Setting:
        """Read "64@0.5:2". Raises `InputError` for anything else."""
        try:
            width, _, rest = text.partition("@")
            scale, _, images = rest.partition(":")
            found = cls(int(width), float(scale), int(images))
        except ValueError:
            raise InputError(f"{text!r} is no setting: give WIDTH@SCALE:IMAGES, such as 16@0.25:24") from None
        if min(found.width, found.images) < 1 or not 0 < found.scale <= 1:
            raise InputError(f"{text!r}: width and images are at least 1, the scale is above 0 and at most 1")
        return found


@dataclass
class Side:
    """What was measured of one training.

    Attributes:
        name: milesial or ours, and the variant.
        request: what its process is asked to open.
        epochs: answers of its process by launch and round; the first of a launch is the first epoch.
        notes: what it had to say, such as which precision was taken.
        reason: why it failed, or None.
    """

    name: str
    request: dict[str, Any]
    epochs: list[list[dict[str, Any]]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    reason: str | None = None


def main(arguments: list[str] | None = None) -> int:
    """Measure and write; 0, or 1 with one line of what is wrong."""
    options = _options(arguments)
    return measure_and_write(lambda: measure(options), markdown, options.output, options.raw)


def measure(options: argparse.Namespace) -> dict[str, Any]:
    """All settings, as plain data.

    Raises:
        UnetEdgeError: the images cannot be used, or an option makes no sense.
    """
    settings = [Setting.parse(text) for text in options.settings]
    pairs, problems = pair_files(options.images, options.masks)
    if problems:
        raise DatasetError(problems)
    most = max(setting.images for setting in settings)
    if len(pairs) < most:
        raise InputError(f"{options.images}: {len(pairs)} images with masks, a setting asks for {most}")
    found = [{**asdict(setting), "sides": _measure_setting(setting, pairs, options)} for setting in settings]
    return {
        "command": shlex.join(["python", "benchmarks/training.py", *_shown(options)]),
        "machine": {**machine_facts(), **machine_state(), "device": _device_name(options.device)},
        "threads": options.threads,
        "batch": options.batch,
        "launches": options.launches,
        "apart": options.apart,
        "later_epochs": options.rounds,
        "settings": found,
    }


def _measure_setting(setting: Setting, pairs: Sequence[Pair], options: argparse.Namespace) -> list[dict[str, Any]]:
    with tempfile.TemporaryDirectory() as folder:
        common = _prepare(setting, pairs, options.up == "bilinear", Path(folder))
        common |= {"batch": options.batch, "device": options.device, "epochs": 1 + options.rounds}
        sides = [
            Side(f"{whose} {variant}", {"whose": whose, "variant": variant, **common})
            for whose in ("milesial", "ours")
            for variant in getattr(options, whose)
        ]
        for launch in range(options.launches):
            order = rotated(sides, launch)
            for together in [[side] for side in order] if options.apart else [order]:
                _launch(together, options.rounds, options.threads)
    measured = ("name", "epochs", "notes", "reason")
    return [{key: getattr(side, key) for key in measured} for side in sides]


def _prepare(setting: Setting, pairs: Sequence[Pair], bilinear: bool, folder: Path) -> dict[str, Any]:
    """Copy an epoch's images, which also brings them into the system's memory, and make the first weights."""
    for number in range(setting.images):
        pair = pairs[number * len(pairs) // setting.images]
        for kind, source in (("images", pair.image), ("masks", pair.mask)):
            (folder / kind).mkdir(exist_ok=True)
            shutil.copyfile(source, folder / kind / source.name)
    data = DataConfig(folder / "images", folder / "masks", validation=0)
    network = NetworkConfig(base_channels=setting.width, bilinear=bilinear, scale=setting.scale)
    _, scan = gather(data, 0, None)
    model, spec = make_model(network, make_spec(data, network, scan), None, _say)
    save_checkpoint(folder / "first.pth", model, spec, {})
    return {
        "checkpoint": os.fspath(folder / "first.pth"),
        "images": os.fspath(folder / "images"),
        "masks": os.fspath(folder / "masks"),
        "suffix": pairs[0].mask.stem.removeprefix(pairs[0].image.stem),
        "scale": setting.scale,
    }


def _launch(sides: Sequence[Side], rounds: int, threads: int) -> None:
    """New processes for all sides that have not failed, and their epochs in turns."""
    folders = (".", "runtime", "export", "benchmarks", "benchmarks/peers")
    env = {"PYTHONPATH": os.pathsep.join(os.fspath(ROOT / name) for name in folders)}
    with contextlib.ExitStack() as stack:
        children: dict[str, Child] = {}
        for side in sides:
            if side.reason is None:
                children[side.name] = stack.enter_context(Child("training_worker", threads, env=env))
                _ask(side, children[side.name], "open", **side.request)
                side.epochs.append([])
        for number in range(1 + rounds):
            for side in rotated(sides, number):
                if side.reason is None:
                    _say(f"{side.name}, epoch {number + 1}")
                    side.epochs[-1].append(_ask(side, children[side.name], "epoch"))


def _ask(side: Side, child: Child, do: str, **request: Any) -> dict[str, Any]:
    try:
        answer = child.ask(TIMEOUT, do=do, **request)
    except BackendError as error:
        side.reason = str(error)
        child.close()
        return {}
    side.notes = answer.pop("notes")
    return answer


def _device_name(device: str) -> str:
    import torch

    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device


def _say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)


def _shown(options: argparse.Namespace) -> list[str]:
    """The options as they would be typed, folders without where they are."""
    words = ["--images", options.images.name, "--masks", options.masks.name, "--device", options.device]
    for name in ("settings", "ours", "milesial"):
        words += [f"--{name}", *getattr(options, name)]
    for name in ("up", "batch", "threads", "launches", "rounds"):
        words += [f"--{name}", str(getattr(options, name))]
    return words + (["--apart"] if options.apart else [])


def _options(arguments: list[str] | None) -> argparse.Namespace:
    from peers.training_worker import PARTS

    def variant(text: str) -> str:
        if unknown := [part for part in text.split("+") if part not in PARTS]:
            raise argparse.ArgumentTypeError(f"{unknown[0]!r} is none of {', '.join(PARTS)}")
        return text

    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=Path, required=True, help="folder of images")
    parser.add_argument("--masks", type=Path, required=True, help="folder of their masks")
    parser.add_argument("--settings", nargs="+", default=SETTINGS, metavar="WIDTH@SCALE:IMAGES")
    parser.add_argument("--ours", nargs="+", default=OURS, type=variant, metavar="VARIANT")
    parser.add_argument("--milesial", nargs="+", default=MILESIAL, choices=MILESIAL)
    parser.add_argument("--up", default="transposed", choices=["transposed", "bilinear"], help="decoder")
    parser.add_argument("--batch", type=int, default=1, help="images a step")
    parser.add_argument("--device", default="cpu", help="cpu, cuda or mps")
    parser.add_argument("--threads", type=int, default=physical_cores(), help="inside one operation")
    parser.add_argument("--launches", type=int, default=4, help="new processes for each side")
    parser.add_argument("--rounds", type=int, default=2, help="epochs after the first, in each launch")
    parser.add_argument("--apart", action="store_true", help="one process at a time, where memory does not hold all")
    parser.add_argument("--output", type=Path, default=Path(__file__).with_name("TRAINING.md"))
    parser.add_argument("--raw", type=Path, help="also write everything that was measured as JSON")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
