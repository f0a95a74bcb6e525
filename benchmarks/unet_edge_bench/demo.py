"""The whole road on real images: data, training, export, prediction, agreement, one page."""

from __future__ import annotations

import datetime
import json
import shutil
from collections.abc import Callable, Iterable
from dataclasses import asdict, dataclass, field, replace
from pathlib import Path
from typing import Any

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.data.sample import SAMPLE_CLASSES, make_brain_sample
from unet_edge.data.split import Split, split_pairs
from unet_edge.training.config import TrainConfig
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, resume, train
from unet_edge.training.reporter import Reporter
from unet_edge_export import FORMATS
from unet_edge_export.images import spread
from unet_edge_runtime.backend import load_backend
from unet_edge_runtime.errors import DatasetError, InputError, MissingExtraError, TrainingError
from unet_edge_runtime.files import write_json
from unet_edge_runtime.image import read_image
from unet_edge_runtime.segmenter import Segmenter

from .agreement import Outcome, insist_on_agreement, mask_file, overlay_file, predict_all
from .artefacts import BACKENDS, Artefact, backend_options, checkpoint_artefact, exported, open_backends
from .demo_facts import collect_facts
from .demo_folder import DemoFolder, Steps
from .latency import Protocol, measure, measure_load, total
from .machine import available_cores
from .page import write_page

__all__ = ["BRAIN", "Plan", "run_demo"]

MEASURED = ("measured", "backends", "refused", "threads", "protocol")

Progress = Callable[[Iterable[Any], str, int], Iterable[Any]]


@dataclass(frozen=True)
class Plan:
    """What the demo does.

    Attributes:
        title: of the page.
        source: where the images come from, as a sentence.
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
    sample: Callable[[Path, Progress | None], tuple[Path, Path]] = make_brain_sample
    class_names: tuple[str, ...] = SAMPLE_CLASSES
    network: NetworkConfig = NetworkConfig(base_channels=8, depth=4, bilinear=True, scale=1.0)
    training: TrainConfig = TrainConfig(epochs=8, batch_size=2)
    required: dict[str, float] = field(default_factory=lambda: {"grey matter": 0.85, "white matter": 0.80})
    protocol: Protocol = Protocol()
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
        epochs: another number of epochs than the plan's.
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
    if epochs is not None:
        plan = replace(plan, training=replace(plan.training, epochs=epochs))
    place, listener = DemoFolder(folder), Listener(say, reporter, progress)
    place.claim(force)
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
    measured = _measured(plan, place, split, artefacts, facts, steps, say)
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
    train(
        data, place.run, plan.network, plan.training, "cpu", listener.reporter, listener.progress, listener.say
    )  # fmt: skip
    return False


def _check_settings(plan: Plan, place: DemoFolder) -> None:
    """A run of other settings is neither continued nor thrown away unasked."""
    config = RunFolder(place.run).config
    try:
        had = json.loads(config.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{config}: cannot be read ({error}): start anew with --force") from None
    for part, wanted in (("training", asdict(plan.training)), ("network", asdict(plan.network))):
        other = {key: value for key, value in had[part].items() if key in wanted and wanted[key] != value}
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


def _measured(
    plan: Plan,
    place: DemoFolder,
    split: Split,
    artefacts: dict[str, Artefact],
    facts: dict[str, Any],
    steps: Steps,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Scores, agreement and latency: what the last run found, where nothing has changed since; else found now."""
    threads = min(plan.threads, available_cores())
    segmenters, refused = open_backends(artefacts, threads)
    files = [f(place.predictions, n, p.name) for f in (mask_file, overlay_file) for n in segmenters for p in split.val]
    before = place.previous()
    unchanged = all(before.get(key) == facts[key] for key in ("machine", "artefacts", "data"))
    if unchanged and list(before.get("backends", {})) == list(segmenters) and all(file.exists() for file in files):
        say("[4/6] predict, [5/6] agree, [6/6] time: nothing has changed")
        return {key: before[key] for key in MEASURED}
    with steps("predict"):
        shutil.rmtree(place.predictions, ignore_errors=True)
        say(f"[4/6] predict: {len(split.val)} images through {' and '.join(segmenters)}")
        outcomes = predict_all(segmenters, split.val, place.predictions)
    _check_outcomes(plan, outcomes, say)
    for name, reason in refused.items():
        say(f"      {name}: converted, not executed on this machine ({reason})")
    with steps("time"):
        latency = _latency(plan, segmenters, split.val, threads, say)
    backends = {
        name: {"artefact": BACKENDS[name], **outcome.to_dict(), "latency": latency[name]}
        for name, outcome in outcomes.items()
    }
    now = datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")
    values = (now, backends, refused, threads, asdict(plan.protocol))
    return dict(zip(MEASURED, values, strict=True))


def _check_outcomes(plan: Plan, outcomes: dict[str, Outcome], say: Callable[[str], None]) -> None:
    for name, outcome in outcomes.items():
        dice = {c["name"]: c["dice"] for c in outcome.scores["classes"]}
        say(f"      {name}: Dice " + ", ".join(f"{c} {d:.4f}" for c, d in dice.items() if d is not None))
        low = [f"{c} {dice.get(c) or 0:.3f} (at least {least})" for c, least in plan.required.items()
               if (dice.get(c) or 0) < least]  # fmt: skip
        if low:
            raise TrainingError(
                f"the validation Dice stayed too low with {name}: {', '.join(low)}. "
                "Train longer: unet-edge demo --force --epochs N"
            )
    insist_on_agreement(outcomes)
    for name, outcome in outcomes.items():
        if outcome.agreement:
            difference, flipped = outcome.agreement.max_difference, outcome.agreement.flipped
            say(f"[5/6] agree: {name} and torch differ in {flipped} of {outcome.agreement.pixels:,} pixels, "
                f"largest logit difference {difference:.1e}")  # fmt: skip


def _latency(
    plan: Plan, segmenters: dict[str, Segmenter], pairs: list[Pair], threads: int, say: Callable[[str], None]
) -> dict[str, dict[str, Any]]:
    """Timings of the middle image, as plain data by backend."""
    say(f"[6/6] time: single images, {threads} thread{'s' if threads > 1 else ''}")
    timings = measure(segmenters, read_image(pairs[len(pairs) // 2].image), plan.protocol)
    loads = {
        name: measure_load(
            lambda name=name, path=s.backend.path: load_backend(path, name, **backend_options(name, threads)),  # type: ignore[misc]
            plan.protocol.loads,
        )
        for name, s in segmenters.items()
    }
    return {
        name: {
            "load": loads[name].to_dict(),
            "stages": {stage: timing.to_dict() for stage, timing in stages.items()},
            "total": total(stages).to_dict(),
        }
        for name, stages in timings.items()
    }
