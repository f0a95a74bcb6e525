"""What the demo knows before it measures anything: data, training, artefacts, machine, commands."""

from __future__ import annotations

import json
import shlex
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.split import Split
from unet_edge.training.run_folder import RunFolder
from unet_edge_bench.machine import machine_facts
from unet_edge_runtime.image import read_image

from .artefacts import Artefact
from .folder import RESULTS_VERSION, DemoFolder

if TYPE_CHECKING:
    from .run import Plan

__all__ = ["by_hand", "collect_facts"]


def collect_facts(plan: Plan, place: DemoFolder, split: Split, artefacts: dict[str, Artefact]) -> dict[str, Any]:
    """Plain data, equal to what JSON gives back."""
    facts = {
        "format": "unet-edge demo results",
        "version": RESULTS_VERSION,
        "title": plan.title,
        "source": plan.source,
        "caveat": plan.caveat,
        "required": plan.required,
        "machine": machine_facts(),
        "data": {
            "train": [pair.name for pair in split.train],
            "validation": [pair.name for pair in split.val],
            "size": read_image(split.val[0].image).shape[:2],
            "classes": plan.class_names,
        },
        "training": _training(plan, place),
        "artefacts": {format: artefact.to_dict() for format, artefact in artefacts.items()},
        "spec": artefacts["onnx"].spec.to_dict(),
        "commands": by_hand(plan),
    }
    return json.loads(json.dumps(facts))


def by_hand(plan: Plan) -> list[dict[str, str]]:
    """The commands that do the same by hand, each with what it does."""
    network, training = plan.network, plan.training
    sample, run = "by-hand/sample", "by-hand/run"
    options: list[object] = [
        *("--images", f"{sample}/images", "--masks", f"{sample}/masks", "--val-list", f"{sample}/val.txt"),
        *("--class-names", ",".join(plan.class_names), "--scale", f"{network.scale:g}"),
        *("--base-channels", network.base_channels, "--depth", network.depth),
        *(["--bilinear"] if network.bilinear else []),
        *("--batch-size", training.batch_size, "--epochs", training.epochs, "--device", "cpu", "--out", run),
    ]
    steps: list[tuple[str, list[object]]] = [
        ("make the data set", ["data", "sample", "-o", sample]),
        ("train", ["train", *options]),
        ("export, and compare with PyTorch", ["export", f"{run}/best.pth", "--format", "onnx", "--format", "coreml"]),
        ("score the checkpoint", ["evaluate", f"{run}/best.pth", "--run", run]),
        ("score the export", ["evaluate", f"{run}/best.onnx", "--run", run]),
        ("write masks", ["predict", "-m", f"{run}/best.onnx", f"{sample}/images", "-o", "by-hand/masks", "--overlay"]),
        ("see what a model knows", ["inspect", f"{run}/best.onnx"]),
    ]
    return [{"what": what, "command": shlex.join(["unet-edge", *map(str, words)])} for what, words in steps]


def _training(plan: Plan, place: DemoFolder) -> dict[str, Any]:
    run = RunFolder(place.run)
    checkpoint, records = read_checkpoint(run.best), run.read_metrics()
    epochs = [record for record in records if record["event"] == "train"]
    validations = [record for record in records if record["event"] == "validation"]
    return {
        **asdict(plan.training),
        "network": asdict(checkpoint.config),
        "parameters": sum(p.numel() for p in checkpoint.build().parameters()),
        "best_epoch": checkpoint.state["best"]["epoch"],
        "loss": [{key: record[key] for key in ("epoch", "loss", "learning_rate")} for record in epochs],
        "validation": [{key: record[key] for key in ("epoch", "dice", "classes")} for record in validations],
    }
