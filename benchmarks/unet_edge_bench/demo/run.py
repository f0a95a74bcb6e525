"""The whole road on real images: data, training, export, prediction, agreement, one page."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.looking import Progress
from unet_edge.data.pairing import pair_files
from unet_edge.data.sample import SAMPLE_CLASSES, make_brain_sample
from unet_edge.data.split import Split, split_pairs
from unet_edge.training.config import TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train
from unet_edge_bench.timing.plan import Protocol
from unet_edge_export import FORMATS
from unet_edge_export.images import spread
from unet_edge_runtime.errors import DatasetError, InputError, MissingExtraError
from unet_edge_runtime.files import write_json

from .artefacts import Artefact, checkpoint_artefact, exported
from .facts import collect_facts
from .folder import DemoFolder, Steps
from .measure import measured_results
from .page import write_page

__all__ = ["BRAIN", "Plan", "run_demo"]

QUICK_LOOK = Protocol(launches=3, rounds=4, seconds_per_turn=0.1, min_samples=3, settle_seconds=0.05, warmup_seconds=1)


@dataclass(frozen=True)
class Plan:
    """What the demo does.

    Attributes:
        title: of the page.
        source: where the images come from, as a sentence.
        caveat: what the scores do not say.
        sample: makes the data set in a folder, or finds it there: (folder, progress) -> images, masks. The folder
            also gets `val.txt`.
        class_names: of the mask values, ascending.
        network: which network.
        training: how it is trained.
        required: least validation Dice, by class.
        protocol: how latency is measured.
        threads: at most, for every backend.
    """

    title: str = "Brain MRI, from slices to an edge device"
    source: str = "Axial T1-weighted slices of the MNI152 2009a template, from data files inside the package nilearn."
    caveat: str = (
        "All slices show one brain, an average of many: the scores say that the road works, "
        "not how well it would do on another brain."
    )
    sample: Callable[[Path, Progress | None], tuple[Path, Path]] = make_brain_sample
    class_names: tuple[str, ...] = SAMPLE_CLASSES
    network: NetworkConfig = field(default_factory=lambda: NetworkConfig(8, 4, bilinear=True, scale=1.0))
    training: TrainConfig = field(default_factory=lambda: TrainConfig(epochs=8, batch_size=2))
    required: dict[str, float] = field(default_factory=lambda: {"grey matter": 0.85, "white matter": 0.80})
    protocol: Protocol = QUICK_LOOK
    threads: int = 2


BRAIN = Plan()


@dataclass(frozen=True)
class Listener:
    """Who is told: `say` a line at a time, `reporter` while it trains, `progress` for bars."""

    say: Callable[[str], None] = lambda message: None
    reporter: Reporter | None = None
    progress: Progress | None = None


def run_demo(
    folder: Path,
    plan: Plan = BRAIN,
    *,
    epochs: int | None = None,
    force: bool = False,
    reporter: Reporter | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
) -> Path:
    """Do all of it in `folder`; what a run before left there is used again.

    Args:
        folder: gets `sample/`, `run/` with checkpoints and artefacts, `predictions/`, `results.json`, `index.html`.
        plan: what to do.
        epochs: another number of epochs than the plan's, or than that of the run that is there.
        force: start anew, in a folder that the demo made.
        reporter: told while it trains.
        progress: draws bars.
        say: told what is done, a line at a time.

    Returns:
        The page.

    Raises:
        InputError: the folder holds something else, or a run of other settings.
        TrainingError: training was interrupted (and saved), or the scores stay below what the plan requires.
        AgreementError: a backend computes something else than PyTorch.
    """
    place, listener = DemoFolder(folder), Listener(say, reporter, progress)
    place.claim(force)
    epochs = epochs or _settings(place).get("training", {}).get("epochs", plan.training.epochs)
    plan = replace(plan, training=replace(plan.training, epochs=epochs))
    steps = Steps(place.previous())
    with steps("data") as step:
        step.reused = place.sample.exists()
        images, masks = plan.sample(place.sample, progress)
        split = _split(images, masks, place.sample / "val.txt")
        say(f"[1/6] data: {len(split.train)} images train, {len(split.val)} validate")
    with steps("train") as step:
        step.reused = _train(plan, place, images, masks, listener)
    with steps("export") as step:
        artefacts, notes = _export(place, split, say)
        step.reused = all(artefact.reused for artefact in artefacts.values())
    facts = collect_facts(plan, place, split, artefacts)
    measured = measured_results(plan, place, split.val, artefacts, facts, steps, say)
    results = {**facts, **measured, "notes": notes, "steps": steps.to_dict()}
    write_json(place.results, results)
    return write_page(place, results, split.val)


def _split(images: Path, masks: Path, val_list: Path) -> Split:
    pairs, problems = pair_files(images, masks)
    if problems:
        raise DatasetError(problems)
    return split_pairs(pairs, val_list=val_list)


def _train(plan: Plan, place: DemoFolder, images: Path, masks: Path, listener: Listener) -> bool:
    """Train, continue, or do nothing; whether there was nothing to do."""
    run = RunFolder(place.run)
    if run.best.exists() and not run.last.exists():
        shutil.rmtree(place.run)  # killed within the first epoch: not enough to continue from
    if run.last.exists():
        _check_settings(plan, place)
        if read_checkpoint(run.last).state["epoch"] > plan.training.epochs:
            listener.say(f"[2/6] train: {run.best} is there")
            return True
        listener.say("[2/6] train: an interrupted run continues")
        resume(place.run, "cpu", reporter=listener.reporter)
        return False
    listener.say(f"[2/6] train: {plan.training.epochs} epochs")
    data = DataConfig(images, masks, val_list=place.sample / "val.txt", class_names=plan.class_names)
    # On the CPU everywhere: it takes a minute, and what comes out does not depend on the machine's other devices.
    tell = (listener.reporter, listener.progress, listener.say)
    train(data, place.run, plan.network, plan.training, "cpu", *tell)
    return False


def _settings(place: DemoFolder) -> dict[str, Any]:
    """How the run that is there was trained; empty where there is none."""
    run = RunFolder(place.run)
    if not run.last.exists():
        return {}
    try:
        return json.loads(run.config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{run.config}: cannot be read ({error}): start anew with --force") from None


def _check_settings(plan: Plan, place: DemoFolder) -> None:
    """A run of other settings is neither continued nor thrown away unasked."""
    had = _settings(place)
    for part, wanted in (("training", asdict(plan.training)), ("network", asdict(plan.network))):
        other = {key: value for key, value in had.get(part, {}).items() if key in wanted and wanted[key] != value}
        if other:
            said = ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in other.items())
            raise InputError(f"{place.run} was trained with {said}: start anew with --force, or choose another folder")


def _export(place: DemoFolder, split: Split, say: Callable[[str], None]) -> tuple[dict[str, Artefact], dict[str, str]]:
    """The artefacts by format, and why one is missing where its converter cannot be installed."""
    checkpoint = RunFolder(place.run).best
    artefacts, notes = {"checkpoint": checkpoint_artefact(checkpoint)}, {}
    images = spread([pair.image for pair in split.val])
    for format in FORMATS:
        try:
            artefacts[format] = exported(checkpoint, format, images, lambda message: say(f"      {message}"))
        except MissingExtraError as error:
            if format == "onnx":
                raise
            notes[format] = f"not converted: {error}"
            say(f"[3/6] export: {format} {notes[format]}")
            continue
        artefact = artefacts[format]
        say(f"[3/6] export: {artefact.path}{' is there and up to date' if artefact.reused else ''}")
    return artefacts, notes
