"""`unet-edge train`."""

from __future__ import annotations

import os
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_edge.training.config import TrainConfig, parse_save_every
from unet_edge.training.distributed import current
from unet_edge.training.launch import LaunchableCommand, is_launched, launch

from .common import echo_json, say, track
from .progress import ConsoleReporter
from .sections import SectionedHelp
from .train_options import train_options

if TYPE_CHECKING:
    from unet_edge.training.start import DataConfig, NetworkConfig

WITH_RESUME = {
    "resume_from", "epochs", "device", "as_json", "track", "nproc", "max_restarts", "workers", "cache", "save_every",
}  # fmt: skip


AFTER_A_LOSS = "continue with --resume and the run's folder; --max-restarts does so by itself"


class _Command(LaunchableCommand, SectionedHelp):
    """Keeps its arguments for other processes, and shows its options in sections."""


@click.command(
    cls=_Command, epilog="Example: unet-edge train --images photos --masks masks --out run --scale 0.25 --bilinear"
)
@train_options
@click.pass_context
def command(ctx: click.Context, /, **options: Any) -> None:
    """Train a U-Net on a folder of images and a folder of masks.

    The data set is checked first, and all of its problems are listed together. The run folder gets best.pth and
    last.pth, the configuration, the split, metrics.jsonl, curves.png, overlays and TensorBoard files. Ctrl-C saves
    and says how to continue; --resume continues after a kill, too.
    """
    # Before torch is loaded. Threads that spin while they wait take the cores from each other as soon as anything else
    # runs: training is then several times slower.
    os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    changes, resume_from = _changes(options), options["resume_from"]
    _check_folders(options)
    if (options["nproc"] > 1 or options["max_restarts"]) and not is_launched():
        launch(["train", *ctx.obj], options["nproc"], options["max_restarts"], AFTER_A_LOSS)
        return
    if resume_from is not None:
        _tell(_resume(resume_from, options, changes), resume_from, options["as_json"])
    elif options["folds"] and not options["fold"]:
        _tell_folds(_train(options, changes), options["out"], options["as_json"])
    else:
        _tell(_train(options, changes), options["out"], options["as_json"])


def _train(options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    from unet_edge.data.loader import default_workers
    from unet_edge.device import pick_device
    from unet_edge.training import folds, start

    if changes["workers"] is None:
        changes["workers"] = default_workers(pick_device(options["device"]))
    if changes["cache"] is None and current().size > 1:
        changes["cache"] = "disk"  # each epoch deals the images out anew, and a process's memory is its own
    made_of = {"network": _network(options), "config": TrainConfig.from_recipe(options["recipe"], **changes)}
    shown = {"reporter": ConsoleReporter(), "progress": track, "say": say if current().is_writer else _nobody}
    others = {"device": options["device"], "trackers": options["track"] or ("tensorboard",), **made_of, **shown}
    if options["folds"] and not options["fold"]:
        return folds.train_folds(_data(options), options["out"], options["folds"], **others)
    return start.train(_data(options), options["out"], **others)


def _resume(run: Path, options: dict[str, Any], changes: dict[str, Any]) -> dict[str, Any]:
    from unet_edge.training.start import resume

    given = {name: value for name, value in changes.items() if value is not None and name != "epochs"}
    trackers = options["track"] or None
    return resume(run, options["device"], changes["epochs"], ConsoleReporter(), trackers, given)


def _data(options: dict[str, Any]) -> DataConfig:
    from unet_edge.training.start import DataConfig

    names = options["class_names"]
    own = {field.name: options[field.name] for field in fields(DataConfig) if field.name in options}
    own["class_names"] = tuple(name.strip() for name in names.split(",")) if names else None
    return DataConfig(**own, has_background=not options["no_background"])


def _network(options: dict[str, Any]) -> NetworkConfig:
    from unet_edge.training.start import NetworkConfig

    return NetworkConfig(**{field.name: options[field.name] for field in fields(NetworkConfig)})


def _changes(options: dict[str, Any]) -> dict[str, Any]:
    """What the options change in the recipe's values; None where they change nothing."""
    if options["amp"] is not None and options["precision"] is not None:
        raise click.UsageError("--precision says more than --amp or --no-amp: give one of them")
    changes = {field.name: options[field.name] for field in fields(TrainConfig) if field.name in options}
    del changes["recipe"]
    if options["amp"] is not None:
        changes["precision"] = "auto" if options["amp"] else "fp32"
    if options["save_every"] is not None:
        changes.update(parse_save_every(options["save_every"]))
    return changes


def _check_folders(options: dict[str, Any]) -> None:
    from unet_edge.training.run_folder import RunFolder

    if options["resume_from"] is None:
        if not (options["images"] and options["masks"] and options["out"]):
            raise click.UsageError("--images, --masks and --out are needed (or --resume RUN)")
        if options["fold"] and not options["folds"]:
            raise click.UsageError("--fold says which of --folds K validates: give both")
        if not options["folds"] and current().size == 1 and not current().restarts:
            RunFolder(options["out"]).check_free()  # before the data set is looked at, too
        return
    if options["images"] or options["masks"] or options["out"]:
        raise click.UsageError("--resume continues a run as it was: leave --images, --masks and --out out")
    # An option that would be left aside must not look as if it counted.
    context = click.get_current_context()
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in WITH_RESUME:
            raise click.UsageError(
                f"--resume continues a run as it was, so {parameter.opts[0]} cannot change: start a new run, "
                "from the old weights with --load RUN/best.pth if they are good"
            )
    RunFolder(options["resume_from"]).check_resumable()


def _tell(best: dict[str, Any], out: Path, as_json: bool) -> None:
    if not current().is_writer:
        return
    if as_json:
        echo_json(best)
    elif best["dice"] is not None:
        click.echo(f"best validation Dice {best['dice']:.4f} in epoch {best['epoch']}")
    say(f"run folder: {out}\nnext: unet-edge export {out / 'best.pth'}")


def _tell_folds(summary: dict[str, Any], out: Path, as_json: bool) -> None:
    from unet_edge.training.folds import fold_table

    if not current().is_writer:
        return
    if as_json:
        echo_json(summary)
    else:
        click.echo(fold_table(summary))
    say(f"folder of the folds: {out}")


def _nobody(message: str) -> None:
    """Only one of several processes talks."""
