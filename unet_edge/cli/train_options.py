"""The options of `unet-edge train`, in sections."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from unet_edge.device import DEVICES
from unet_edge.losses import TERMS, check_loss
from unet_edge.training.config import (
    AUGMENTS,
    CACHES,
    CHECKPOINTINGS,
    DECAYS,
    FLIPS,
    OPTIMIZERS,
    PRECISIONS,
    TrainConfig,
    parse_class_weights,
    parse_save_every,
)
from unet_edge.training.recipes import RECIPE_NOTES
from unet_edge.training.tracking import TRACKERS

from .common import EXISTING_FOLDER, SizeType
from .sections import CheckedText, section
from .values import MaskValueType

__all__ = ["train_options"]

FOLDER = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
SHARE = click.FloatRange(0, 1)
BELOW_ONE = click.FloatRange(0, 1, max_open=True)
POSITIVE = click.FloatRange(0, min_open=True)
COUNT = click.IntRange(1)


def with_default(option: Callable[..., Any]) -> Callable[..., Any]:
    """Options whose help ends with the value of the recipe "default"."""

    def make(name: str, *others: str, **settings: Any) -> Any:
        value = getattr(TrainConfig, name.removeprefix("--").replace("-", "_"), None)
        told = "[default:" in settings["help"] or "show_default" in settings
        if value is not None and not isinstance(value, bool) and not told:
            shown = f"{value:g}" if isinstance(value, float) else value
            settings["help"] += f"  [default: {shown}]"
        return option(name, *others, **settings)

    return make


data, network, recipe = section("Data"), section("Network"), with_default(section("Recipe"))
speed, processes = with_default(section("Speed and memory")), section("Several processes")
tracking, output = section("Tracking"), section("Output")

DATA = [
    data("--images", type=EXISTING_FOLDER, help="Folder of images; needed unless --resume is given."),
    data(
        "--masks", type=EXISTING_FOLDER, help="Folder of masks, named like the images up to a suffix; needed likewise."
    ),
    data("--mask-suffix", help="What masks have after the image's name, such as _mask.  [default: found by itself]"),
    data("--val-images", type=EXISTING_FOLDER, help="Folder of validation images, instead of a split."),
    data("--val-masks", type=EXISTING_FOLDER, help="Folder of their masks."),
    data("--val-list", type=FILE, help="File with the names (or groups) that validate, one a line."),
    data(
        "--validation", "-v", type=click.FloatRange(0, 90), default=10.0, show_default=True,
        help="Percent that validates.",
    ),
    data("--group-by", metavar="REGEX", help="Images whose names agree in what this matches stay on one side."),
    data(
        "--folds", type=click.IntRange(2), metavar="K",
        help="Cross-validation: divide the images (or groups) into K parts, of which one validates.",
    ),
    data("--fold", type=COUNT, metavar="I", help="Which part validates, from 1 to K.  [default: each in turn]"),
    data(
        "--fraction", type=click.FloatRange(0, 1, min_open=True), default=1.0, show_default=True,
        help="Share of the data to use.",
    ),
    data("--ignore", type=MaskValueType(), help="Mask value that does not count (void), such as 255 or 255,0,128."),
    data("--class-names", metavar="A,B,...", help="Names of the classes, in the order of their mask values."),
    data("--no-background", is_flag=True, help="The first class is not a background: mean scores include it."),
    data(
        "--max-classes", type=click.IntRange(2, 254), default=64, show_default=True,
        help="More mask values than this are taken for a mistake.",
    ),
]  # fmt: skip

NETWORK = [
    network(
        "--classes", "-c", type=click.IntRange(1, 254),
        help="Outputs of the network; 1: one sigmoid output for two mask values.  [default: one a mask value]",
    ),
    network(
        "--scale", "-s", type=click.FloatRange(0, 16, min_open=True), default=0.5, show_default=True,
        help="Factor on both sides of every image.",
    ),
    network(
        "--base-channels", type=click.IntRange(1, 512), default=64, show_default=True, help="Width of the first block."
    ),
    network(
        "--depth", type=click.IntRange(1, 8), default=4, show_default=True, help="How often the image is halved."
    ),
    network("--bilinear", is_flag=True, help="Interpolate in the decoder instead of transposed convolutions."),
    network("--load", "-f", type=FILE, help="Checkpoint to start from (unet-edge's or milesial's)."),
]  # fmt: skip

RECIPE = [
    recipe(
        "--recipe", type=click.Choice(list(RECIPE_NOTES)), default="default", show_default=True,
        help="Named set of the values in this section: "
        + "; ".join(f"{name}: {note}" for name, note in RECIPE_NOTES.items())
        + ". The defaults below are those of default.",
    ),
    recipe("--epochs", "-e", type=COUNT, help="Passes over the training images."),
    recipe("--batch-size", "-b", type=COUNT, help="Images a step (and process)."),
    recipe("--optimizer", type=click.Choice(OPTIMIZERS), help="sgd has Nesterov's momentum."),
    recipe("--learning-rate", "-l", type=POSITIVE, help="Learning rate at its peak."),
    recipe(
        "--weight-decay", type=BELOW_ONE, help="adamw and sgd leave biases and batch norm alone, rmsprop does not."
    ),
    recipe("--momentum", type=BELOW_ONE, help="Of rmsprop and sgd; the first beta of adamw."),
    recipe("--gradient-clipping", type=POSITIVE, help="Largest norm of the gradients."),
    recipe("--warmup", type=BELOW_ONE, help="Share of the steps in which the rate rises."),
    recipe("--decay", type=click.Choice(DECAYS), help="How the rate falls afterwards; poly has the power 0.9."),
    recipe("--patience", type=COUNT, help="Validations without progress before the rate is divided by 10."),
    recipe("--early-stop", type=click.IntRange(0), help="Validations without progress before the run ends; 0: never."),
    recipe("--validations-per-epoch", type=COUNT, help="How often an epoch is scored."),
    recipe(
        "--freeze-norm", type=SHARE,
        help="Share of the steps after which batch norm trains on its running statistics, but never in the first 50; "
        "1 for never.",
    ),
    recipe(
        "--norm-images", type=click.IntRange(0),
        help="Training images on which batch norm's statistics are estimated anew before each validation of the first "
        "100 steps, or 10 / (1 - ema); 0: none.",
    ),
    recipe(
        "--ema", type=BELOW_ONE,
        help="Keep and validate a running average of the weights with this decay, such as 0.999; 0: the weights "
        "themselves.",
    ),
    recipe(
        "--loss", type=CheckedText("TERMS", check_loss),
        help="Terms joined by +, each with a weight if wanted, as in ce+0.5*lovasz. "
        + "; ".join(f"{name}: {text}" for name, text in TERMS.items()) + ".",
    ),
    recipe(
        "--class-weights", type=CheckedText("none|balanced|W,W,...", parse_class_weights),
        help="What a pixel of each class counts in ce and focal; balanced: by the classes' shares of all pixels.",
    ),
    recipe(
        "--augment", type=click.Choice(AUGMENTS),
        help="Random zoom, rotation, shift, brightness and contrast; strong: also shear, bends, colours, noise, blur.",
    ),
    recipe(
        "--flip", type=click.Choice(FLIPS),
        help="Random mirroring, whatever --augment says; both: also upside down. It makes classes wrong that differ "
        "only by their side, such as left and right lung: none for these.",
    ),
    recipe(
        "--crop", type=SizeType(),
        help="Train on random crops of this size, in pixels after --scale, such as 512x512.  [default: whole images]",
    ),
    recipe("--seed", type=int, help="Of weights, order, augmentation and split."),
    recipe(
        "--deterministic", is_flag=True, default=None,
        help="Only operations that give the same bits each time: on a CPU a run that was killed and resumed then "
        "equals one that never was, on the same machine with the same number of threads.",
    ),
]  # fmt: skip

SPEED = [
    speed("--device", type=click.Choice(DEVICES), default="auto", show_default=True, help="Where to train."),
    speed(
        "--amp/--no-amp", default=None,
        help="Mixed precision as suits the device (--precision auto), or fp32.  [default: --no-amp]",
    ),
    speed("--precision", type=click.Choice(PRECISIONS), help="Number format of a step; the loss is always in fp32."),
    speed(
        "--accumulate", type=COUNT, metavar="PARTS",
        help="Compute each batch in so many parts: less memory, the same step.",
    ),
    speed(
        "--checkpointing", type=click.Choice(CHECKPOINTINGS),
        help="Whose activations are computed twice instead of kept: less memory for more time; auto: what fits.",
    ),
    speed("--compile", is_flag=True, default=None, help="Compile the network with torch.compile."),
    speed(
        "--workers", type=click.IntRange(0, 1024),
        help="Processes that prepare images.  [default: 0 on a CPU, by the cores on a GPU]",
    ),
    speed(
        "--cache", type=click.Choice(CACHES),
        help="Where prepared images are kept.  [default: memory; disk for several processes]",
    ),
    speed(
        "--fast-decode", is_flag=True, default=None,
        help="Let the JPEG decoder shrink large images while it reads: faster, slightly different pixels.",
    ),
]  # fmt: skip

PROCESSES = [
    processes(
        "--nproc", type=COUNT, default=1, show_default=True,
        help="Train in so many processes of this machine; for several machines use torchrun.",
    ),
    processes(
        "--max-restarts", type=click.IntRange(0), default=0, show_default=True,
        help="How often all processes are started again, from the last checkpoint, after one was lost.",
    ),
    processes("--sync-norm", is_flag=True, default=None, help="Batch norm over the images of all processes."),
]  # fmt: skip

TRACKING = [
    tracking(
        "--track", multiple=True, type=click.Choice(TRACKERS),
        help="Where the course is recorded; may be repeated.  [default: tensorboard]",
    ),
]  # fmt: skip

OUTPUT = [
    output("--out", "-o", type=FOLDER, help="Folder of the run; made here. Needed unless --resume is given."),
    output(
        "--resume", "resume_from", type=FOLDER,
        help="Continue the run in this folder. With it go only --epochs and what changes no result: --device, "
        "--workers, --cache, --nproc, --track, --save-every, --max-restarts and --json.",
    ),
    output(
        "--save-every", type=CheckedText("STEPS|MINUTESm", parse_save_every),
        help="Write last.pth inside epochs too: every 50 steps, or every 10m (minutes).",
    ),
    output("--json", "as_json", is_flag=True, help="Print the best scores as JSON."),
]  # fmt: skip


def train_options(command: Callable[..., Any]) -> Callable[..., Any]:
    """Give a command all of them."""
    for option in reversed([*DATA, *NETWORK, *RECIPE, *SPEED, *PROCESSES, *TRACKING, *OUTPUT]):
        command = option(command)
    return command
