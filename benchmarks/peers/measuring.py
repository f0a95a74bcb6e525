"""One model after the other: conversion, agreement, the campaign, and milesial's roads."""

from __future__ import annotations

import importlib.metadata
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
from agree import judge
from environments import environment, paths, pinned
from peer_backend import spec_file
from roads import Effort, different_pixels, mask_road, start_road
from roster import Model, Peer, convert

from unet_edge.data.pairing import Pair
from unet_edge_bench.timing.campaign import run_campaign
from unet_edge_bench.timing.plan import Protocol, Row
from unet_edge_bench.timing.results import build_results
from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.image import read_image
from unet_edge_runtime.spec import ModelSpec

__all__ = ["COMPARED", "FULL", "QUICK", "REFERENCE", "Plan", "Task", "measure_networks", "measure_roads", "versions"]

REFERENCE = "torch"  # eager PyTorch in its default layout is what all others must agree with
COMPARED = 4  # images for agreement and scores
SHOWN = 4  # photos of the whole roads


@dataclass(frozen=True)
class Plan:
    """How much to measure.

    Attributes:
        protocol: of the networks.
        masks: of photo to mask in a running process.
        starts: processes of each side for photo to mask, start included.
    """

    protocol: Protocol
    masks: Effort
    starts: int


# More launches of fewer rounds: processes differ more than the turns of one.
FULL = Plan(Protocol(4, 2, 0.4, 2, warmup_seconds=1.0), Effort(4, 2, 4), 5)
QUICK = Plan(Protocol(3, 2, 0.2, 2, warmup_seconds=0.5), Effort(3, 2, 3), 4)


def _nothing() -> dict[str, Any]:
    return {"campaigns": [], "left_out": [], "roads": [], "roads_left_out": [], "different_pixels": {}}


@dataclass(frozen=True)
class Task:
    """What all models have in common, and what was found.

    Attributes:
        images: to compare on; the first is timed.
        pairs: images with masks, or none.
        plan: how much to measure.
        threads: of every runtime.
        say: is told what is being done.
        python: interpreter of each peer that can take part, by name.
        found: what goes into the results.
    """

    images: Sequence[Path]
    pairs: Sequence[Pair]
    plan: Plan
    threads: int
    say: Callable[[str], None]
    python: dict[str, str] = field(default_factory=dict)
    found: dict[str, Any] = field(default_factory=_nothing)

    def prepare(self, peers: Sequence[Peer], cache: Path) -> None:
        """Make the environments that are missing; a peer without one is left out."""
        for peer in peers:
            try:
                if peer.own:
                    self.say(f"environment of {peer.label}")
                self.python[peer.name] = environment(peer.name, cache) if peer.own else sys.executable
            except UnetEdgeError as error:
                self.leave_out("left_out", f"{peer.label}: {error}")

    def leave_out(self, where: str, reason: str) -> None:
        """Note why something is missing, and say so."""
        self.found[where].append(reason)
        self.say(f"left out: {reason}")


def measure_networks(task: Task, model: Model, peers: Sequence[Peer]) -> None:
    """Convert, compare and measure all peers on one model, in one campaign.

    Raises:
        UnetEdgeError: the reference cannot run, or the campaign was interrupted.
    """
    task.say(f"converting {model.name}")
    with tempfile.TemporaryDirectory() as folder:
        pixels = read_image(task.images[0])
        picture = Path(folder) / "photo.npy"
        np.save(picture, pixels)
        converted = [(peer, _converted(task, model, peer)) for peer in peers if peer.name in task.python]
        rows = [_row(task, peer, path, picture) for peer, path in converted if path]
        spec = ModelSpec.from_json(spec_file(model.onnx).read_text(encoding="utf-8"))
        task.say("comparing outputs")
        extras = judge(rows, REFERENCE, spec, task.images, {pair.image: pair.mask for pair in task.pairs})
        protocol = task.plan.protocol
        campaign = run_campaign(rows, protocol, lambda done, total, label: task.say(f"{done}/{total} {label}"))
        if not campaign.complete:
            raise InputError("interrupted: nothing was written")
        name, (height, width) = task.images[0].name, pixels.shape[:2]
        timed = {"name": name, "sha256": sha256_of(task.images[0]), "width": width, "height": height, "timed": True}
        command = "benchmarks/peers/run.py"
        results = build_results(rows, campaign, protocol, images=[timed], origin=name, command=command, extras=extras)
    task.found["campaigns"].append({"name": model.name, "results": results})


def measure_roads(task: Task, model: Model, *, brief: bool) -> None:
    """milesial's roads against ours, each of which may fail alone; if `brief`, the masks alone, an image a turn."""
    photos, threads, plan, found = task.images[:SHOWN], task.threads, task.plan, task.found

    def pixels() -> None:
        found["different_pixels"][model.name] = different_pixels(model, task.images, threads)

    effort = replace(plan.masks, images=1) if brief else plan.masks
    steps: dict[str, Callable[[], None]] = {
        "masks": lambda: found["roads"].append(mask_road(model, photos, threads, effort))
    }
    if not brief:
        steps["process start"] = lambda: found["roads"].append(start_road(model, photos[0], threads, plan.starts))
        steps["differences of masks"] = pixels
    for name, step in steps.items():
        task.say(f"milesial: {name}")
        try:
            step()
        except UnetEdgeError as error:
            task.leave_out("roads_left_out", f"{name}, {model.name}: {error}")


def versions(peers: Sequence[Peer], task: Task) -> dict[str, str]:
    """The version of each peer that took part, by its name."""
    return {
        peer.name: pinned(peer.name)[peer.package] if peer.own else importlib.metadata.version(peer.package)
        for peer in peers
        if peer.name in task.python
    }


def _converted(task: Task, model: Model, peer: Peer) -> Path | None:
    try:
        return convert(peer, model, task.python[peer.name])
    except UnetEdgeError as error:
        task.leave_out("left_out", f"{peer.label}, {model.name}: {error}")
        return None


def _row(task: Task, peer: Peer, path: Path, picture: Path) -> Row:
    env = {
        "PYTHONPATH": paths(*(() if peer.own else ("", "export"))),
        # Filled while outputs are compared: no launch compiles what another has compiled.
        "TORCHINDUCTOR_CACHE_DIR": os.fspath(picture.parent / "inductor"),
    }
    return Row(
        id=peer.name,
        path=path,
        backend=peer.runner,
        image=picture,
        threads=task.threads,
        label=peer.label,
        python=task.python[peer.name],
        env=env,
    )
