"""From folders to a trained network: `train` and `resume`, which the command line and Python share."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.looking import Progress
from unet_edge.data.split import Split
from unet_edge.device import pick_device
from unet_edge_runtime.errors import DatasetError, InputError

from . import state
from .config import TrainConfig
from .determinism import seed_everything
from .distributed import World, current
from .memory import told_when_full
from .reporter import Reporter
from .run_folder import RunFolder
from .setup import (
    DataConfig,
    NetworkConfig,
    check_bottleneck,
    gather,
    make_model,
    make_spec,
    oddities,
    oversized_crop,
    sided_classes,
    versions,
    with_class_weights,
)
from .trainer import Trainer

if TYPE_CHECKING:
    import torch

    from unet_edge_runtime.spec import ModelSpec

__all__ = ["HARMLESS", "DataConfig", "NetworkConfig", "resume", "train"]

HARMLESS = ("workers", "cache", "save_steps", "save_minutes")
"""Values of the configuration that a resumed run may change: they change no result."""


def train(
    data: DataConfig,
    out: Path,
    network: NetworkConfig | None = None,
    config: TrainConfig | None = None,
    device: str = "auto",
    reporter: Reporter | None = None,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
    trackers: tuple[str, ...] = ("tensorboard",),
) -> dict[str, Any]:
    """Check a data set, train on it, and leave a run folder.

    In a process that torchrun started this is one part of a run in several processes. One that was started again
    after a failure goes on with the run that it finds in `out`.

    Args:
        data: what to train on.
        out: folder of the run; must not hold one yet.
        network: which network.
        config: how to train; the default recipe by default.
        device: auto, cpu, cuda or mps.
        reporter: told while it trains.
        progress: wraps the files while they are checked: (items, label, length) -> items.
        say: told what was found, a line at a time.
        trackers: where the course is recorded, of `tracking.TRACKERS`.

    Returns:
        The scores of the best validation, with `epoch`.

    Raises:
        DatasetError: the data set has problems; all of them.
        InputError: an option does not fit the data.
        TrainingError: the loss is no longer finite, or the run was interrupted (and saved).
    """
    network, world = network or NetworkConfig(), current()
    wanted = config or TrainConfig()
    run, target = RunFolder(out), world.device(pick_device(device))
    with world.join(target):
        if world.restarts and world.from_writer(run.last.exists):
            return _go_on(run, world, target, {}, reporter, None)
        if not world.is_writer:
            say, reporter = _nobody, None
        split, scan = world.from_writer(lambda: gather(data, wanted.seed, progress))
        for line in oddities(split, scan):
            say(line)
        if wanted.early_stop and not split.val:
            raise InputError("--early-stop looks at validation scores, and no image validates: raise --validation")
        if wanted.sync_norm and world.size == 1:
            say("one process: --sync-norm changes nothing")
        seed_everything(wanted.seed)
        start = read_checkpoint(network.load) if network.load else None
        spec = make_spec(data, network, scan)
        model, spec = make_model(network, spec, start, say)
        check_bottleneck(split, scan, spec, wanted)
        for line in oversized_crop(scan, spec, wanted) + sided_classes(spec, wanted):
            say(line)
        fixed = with_class_weights(wanted, scan)
        with told_when_full(target):
            trainer = Trainer(fixed, model, spec, split, run, target, reporter, world, trackers)
        made_of = {
            "data": _plain(data),
            "network": _plain(network),
            "training": asdict(wanted),
            "model": asdict(model.config),
        }
        world.from_writer(lambda: run.start({**made_of, "device": str(target), **versions()}, split.to_dict()))
        say(
            f"{len(split.train)} images train, {len(split.val)} validate; {_classes(spec)}; "
            f"network of {sum(p.numel() for p in model.parameters()) / 1e6:.2f} M parameters on {target}"
            + (f" in {world.size} processes" if world.size > 1 else "")
        )
        best = trainer.fit()
        del trainer  # while the processes still are together: DistributedDataParallel holds on to their group
        return best


def resume(
    out: Path,
    device: str = "auto",
    epochs: int | None = None,
    reporter: Reporter | None = None,
    trackers: tuple[str, ...] | None = None,
    changes: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Continue an interrupted run from its last checkpoint.

    Args:
        out: the run's folder.
        device: auto, cpu, cuda or mps.
        epochs: a new number of epochs in all; the learning rate then starts a new course over those that are left.
        reporter: told while it trains.
        trackers: where the course is recorded; as before by default.
        changes: values of the configuration that change no result, of `HARMLESS`.

    Returns:
        The scores of the best validation.

    Raises:
        InputError: no such run, or its files are gone, or one of the `changes` would change the result.
        TrainingError: as `train`.
    """
    world, run = current(), RunFolder(out)
    target = world.device(pick_device(device))
    with world.join(target):
        given = dict(changes or {}) if epochs is None else {**(changes or {}), "epochs": epochs}
        return _go_on(run, world, target, given, reporter, trackers)


def _go_on(
    run: RunFolder,
    world: World,
    device: torch.device,
    changes: Mapping[str, Any],
    reporter: Reporter | None,
    trackers: tuple[str, ...] | None,
) -> dict[str, Any]:
    if world.from_writer(run.last.exists) and world.any(not run.last.exists()):
        raise InputError(f"{run.last} is not on every machine: put the run's folder on a disk that all of them share")
    run.check_resumable()
    checkpoint = read_checkpoint(run.last)
    split = Split.from_dict(run.read_split(), str(run.split))
    gone = [str(path) for pair in (*split.train, *split.val) for path in (pair.image, pair.mask) if not path.exists()]
    if gone:
        raise DatasetError([f"{path}: no longer there: put it back, or start a new run" for path in gone])
    if other := set(changes) - {"epochs", *HARMLESS}:
        raise InputError(f"a resumed run goes on as it was: {', '.join(sorted(other))} cannot change")
    config = replace(TrainConfig.from_dict(checkpoint.state.get("train_config", {})), **changes)
    if trackers is None:
        trackers = tuple(checkpoint.state.get("trackers", ()))
    seed_everything(config.seed)
    reporter = reporter if world.is_writer else None
    trainer = Trainer(config, checkpoint.build(), checkpoint.spec, split, run, device, reporter, world, trackers)
    state.restore(trainer, checkpoint)
    world.from_writer(lambda: run.settle(trainer.progress.best_step, trainer.progress.records))
    trainer.reporter.note(_where(trainer))
    return trainer.fit()


def _where(trainer: Trainer) -> str:
    progress, epochs = trainer.progress, trainer.config.epochs
    if trainer.finished:
        return f"{trainer.run.path} is complete: --epochs {2 * epochs} would train it for {epochs} more"
    return f"{trainer.run.path} goes on in epoch {progress.epoch} of {epochs}, after {progress.step} steps"


def _classes(spec: ModelSpec) -> str:
    left_out = f" (means leave out {spec.class_names[spec.background]})" if spec.background is not None else ""
    return f"{len(spec.classes)} classes{left_out}"


def _nobody(message: str) -> None:
    pass


def _plain(config: DataConfig | NetworkConfig) -> dict[str, Any]:
    return {key: str(value) if isinstance(value, Path) else value for key, value in asdict(config).items()}
