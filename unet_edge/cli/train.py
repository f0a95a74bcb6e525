"""`unet-edge train`."""

from __future__ import annotations

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import click

from unet_edge.device import DEVICES
from unet_edge.training.config import DECAYS, FLIPS, RECIPES, TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge_runtime.spec import MaskValue

from .common import EXISTING_FOLDER, echo_json, say, track
from .values import MaskValueType

FOLDER = click.Path(path_type=Path)
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: unet-edge train --images photos --masks masks --out run --scale 0.25 --bilinear")
@click.option("--images", type=EXISTING_FOLDER, help="Folder of images.")
@click.option("--masks", type=EXISTING_FOLDER, help="Folder of masks, named like the images up to a suffix.")
@click.option("--out", "-o", type=FOLDER, help="Folder of the run; made here.")
@click.option(
    "--resume", "resume_from", type=FOLDER, help="Continue the run in this folder; no other folder is needed."
)
@click.option(
    "--mask-suffix", help="What masks have after the image's name, such as _mask.  [default: found by itself]"
)
@click.option("--val-images", type=EXISTING_FOLDER, help="Folder of validation images, instead of a split.")
@click.option("--val-masks", type=EXISTING_FOLDER, help="Folder of their masks.")
@click.option("--val-list", type=FILE, help="File with the names (or groups) that validate, one a line.")
@click.option(
    "--validation", "-v", type=click.FloatRange(0, 90), default=10.0, show_default=True, help="Percent that validates."
)
@click.option("--group-by", metavar="REGEX", help="Images whose match is equal stay on one side of the split.")
@click.option("--fraction", type=click.FloatRange(0, 1, min_open=True), default=1.0, help="Share of the data to use.")
@click.option("--ignore", type=MaskValueType(), help="Mask value that does not count (void), such as 255.")
@click.option("--class-names", metavar="A,B,...", help="Names of the classes, in the order of their mask values.")
@click.option("--no-background", is_flag=True, help="The first class is not a background: mean scores include it.")
@click.option(
    "--max-classes",
    type=click.IntRange(2, 254),
    default=64,
    show_default=True,
    help="More mask values than this are taken for a mistake.",
)
@click.option(
    "--classes", "-c", type=click.IntRange(1, 254), help="1 for one sigmoid output.  [default: the mask values]"
)
@click.option(
    "--scale",
    "-s",
    type=click.FloatRange(0, 16, min_open=True),
    default=0.5,
    show_default=True,
    help="Factor on both sides of every image.",
)
@click.option(
    "--base-channels", type=click.IntRange(1, 512), default=64, show_default=True, help="Width of the first block."
)
@click.option("--depth", type=click.IntRange(1, 8), default=4, show_default=True, help="How often the image is halved.")
@click.option("--bilinear", is_flag=True, help="Interpolate in the decoder instead of transposed convolutions.")
@click.option("--load", "-f", type=FILE, help="Checkpoint to start from (unet-edge's or milesial's).")
@click.option(
    "--recipe",
    type=click.Choice(list(RECIPES)),
    default="default",
    show_default=True,
    help="Named set of the values below.",
)
@click.option("--epochs", "-e", type=click.IntRange(1), help="Passes over the training images.")
@click.option("--batch-size", "-b", type=click.IntRange(1), help="Images a step.")
@click.option("--learning-rate", "-l", type=click.FloatRange(0, min_open=True), help="Of RMSprop, at its peak.")
@click.option("--weight-decay", type=click.FloatRange(0), help="L2 penalty.")
@click.option("--momentum", type=click.FloatRange(0, 1, max_open=True), help="Of RMSprop.")
@click.option("--gradient-clipping", type=click.FloatRange(0, min_open=True), help="Largest norm of the gradients.")
@click.option(
    "--warmup", type=click.FloatRange(0, 1, max_open=True), help="Share of the steps in which the rate rises."
)
@click.option("--decay", type=click.Choice(DECAYS), help="How the rate falls afterwards.")
@click.option(
    "--patience", type=click.IntRange(1), help="Validations without progress before the rate is divided by 10."
)
@click.option(
    "--freeze-norm",
    type=click.FloatRange(0, 1),
    help="Share of the steps after which batch norm trains on its running statistics; 1 for never.",
)
@click.option("--flip", type=click.Choice(FLIPS), help="Random mirroring.")
@click.option("--amp/--no-amp", default=None, help="Mixed precision.")
@click.option(
    "--checkpointing/--no-checkpointing",
    default=None,
    help="Less memory for more time: activations are computed twice.",
)
@click.option("--seed", type=int, help="Of weights, order, flips and split.")
@click.option(
    "--workers", type=click.IntRange(0, 1024), help="Processes that prepare images.  [default: 0 on a CPU, 4 on a GPU]"
)
@click.option("--device", type=click.Choice(DEVICES), default="auto", show_default=True)
@click.option("--json", "as_json", is_flag=True, help="Print the best scores as JSON.")
def command(
    images: Path | None,
    masks: Path | None,
    out: Path | None,
    resume_from: Path | None,
    mask_suffix: str | None,
    val_images: Path | None,
    val_masks: Path | None,
    val_list: Path | None,
    validation: float,
    group_by: str | None,
    fraction: float,
    ignore: MaskValue | None,
    class_names: str | None,
    no_background: bool,
    max_classes: int,
    classes: int | None,
    scale: float,
    base_channels: int,
    depth: int,
    bilinear: bool,
    load: Path | None,
    recipe: str,
    device: str,
    as_json: bool,
    **training: Any,
) -> None:
    """Train a U-Net on a folder of images and a folder of masks.

    The data set is checked first, and all of its problems are listed together. The run folder gets best.pth and
    last.pth, the configuration, the split, metrics.jsonl, curves.png and overlays. Ctrl-C saves and says how to
    continue.
    """
    from unet_edge.training.start import DataConfig, NetworkConfig, resume, train

    reporter = ConsoleReporter()
    if resume_from is not None:
        if images or masks or out:
            raise click.UsageError("--resume continues a run as it was: leave --images, --masks and --out out")
        _check_resume_options()
        best = resume(resume_from, device, training["epochs"], reporter)
        out = resume_from
    else:
        if not (images and masks and out):
            raise click.UsageError("--images, --masks and --out are needed (or --resume RUN)")
        training["workers"] = _default_workers(device) if training["workers"] is None else training["workers"]
        names = tuple(name.strip() for name in class_names.split(",")) if class_names else None
        data = DataConfig(
            images, masks, mask_suffix, val_images, val_masks, val_list, validation, group_by, fraction, ignore,
            names, not no_background, max_classes,
        )  # fmt: skip
        network = NetworkConfig(base_channels, depth, bilinear, classes, scale, load)
        config = TrainConfig.from_recipe(recipe, **training)
        best = train(data, out, network, config, device, reporter, track, say)
    if as_json:
        echo_json(best)
    elif best["dice"] is not None:
        click.echo(f"best validation Dice {best['dice']:.4f} in epoch {best['epoch']}")
    say(f"run folder: {out}\nnext: unet-edge export {out / 'best.pth'}")


def _check_resume_options() -> None:
    """A run goes on as it was; an option that would be left aside must not look as if it counted."""
    context = click.get_current_context()
    honoured = {"resume_from", "epochs", "device", "as_json"}
    for parameter in context.command.params:
        name = parameter.name or ""
        given = context.get_parameter_source(name) is click.core.ParameterSource.COMMANDLINE
        if given and name not in honoured:
            raise click.UsageError(
                f"--resume continues a run as it was, so {parameter.opts[0]} cannot change: start a new run, "
                "from the old weights with --load RUN/best.pth if they are good"
            )


class ConsoleReporter(Reporter):
    """Progress bars on a terminal, plain lines elsewhere."""

    def __init__(self) -> None:
        self.bar: Any = None
        self.loss, self.seconds, self.images = 0.0, 0.0, 0
        self.steps = 0

    @contextmanager
    def epoch(self, epoch: int, epochs: int, images: int) -> Iterator[None]:
        """A bar over the images of one epoch, with loss and speed."""
        import sys

        self.loss, self.steps, self.images = 0.0, 0, 0
        started = time.monotonic()
        label = f"epoch {epoch}/{epochs}"
        if sys.stderr.isatty():
            with click.progressbar(
                length=images, label=label, file=sys.stderr, item_show_func=lambda text: text
            ) as self.bar:
                yield
            self.bar = None
        else:
            yield
        self.seconds = time.monotonic() - started
        say(f"{label}: loss {self.loss / max(1, self.steps):.4f}, {self.images / self.seconds:.1f} images/s")

    def step(self, images: int, loss: float, learning_rate: float) -> None:
        """Move the bar."""
        self.loss, self.steps, self.images = self.loss + loss, self.steps + 1, self.images + images
        if self.bar is not None:
            self.bar.update(images, f"loss {loss:.4f}, rate {learning_rate:.1e}")

    def validating(self, pairs: Any) -> Any:
        """A bar over the validation images."""
        return track(pairs, "validation", len(pairs))

    def validation(self, epoch: int, scores: dict[str, Any], is_best: bool) -> None:
        """The scores, as one line."""
        each = ", ".join(f"{c['name']} {_number(c['dice'])}" for c in scores["classes"][:12])
        best = " (best so far)" if is_best else ""
        say(f"  validation: Dice {_number(scores['dice'])}, IoU {_number(scores['iou'])}{best}  [{each}]")


def _number(value: float | None) -> str:
    return "absent" if value is None else f"{value:.4f}"


def _default_workers(device: str) -> int:
    from unet_edge.device import pick_device

    # On a CPU the network needs every core; prepared images are kept in memory there.
    return 0 if pick_device(device).type == "cpu" else 4
