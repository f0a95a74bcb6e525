"""`unet-edge evaluate`."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_edge.training.distributed import current
from unet_edge.training.launch import LaunchableCommand, is_launched, launch

from .common import BACKEND_HELP, COMPUTE_UNITS, EXISTING_FOLDER, MODEL_FILE, echo_json, tell_what_it_proves, track

if TYPE_CHECKING:
    from unet_edge.data.pairing import Pair
    from unet_edge.training.distributed import World
    from unet_edge_runtime.backend import Backend

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
OUTPUT = click.Path(dir_okay=False, path_type=Path)
WORST = 5  # images that are named


@click.command(cls=LaunchableCommand, epilog="Example: unet-edge evaluate run/best.onnx --images photos --masks masks")
@click.argument("model", type=MODEL_FILE)
@click.option("--images", type=EXISTING_FOLDER, help="Folder of images; needed unless --run is given.")
@click.option("--masks", type=EXISTING_FOLDER, help="Folder of masks, named like the images up to a suffix.")
@click.option("--run", type=EXISTING_FOLDER, help="Instead of folders: the validation images of this run.")
@click.option(
    "--mask-suffix", help="What masks have after the image's name, such as _mask.  [default: found by itself]"
)
@click.option(
    "--list", "list_file", type=FILE, help="File with the names (or groups) to score, one a line.  [default: all]"
)
@click.option("--group-by", metavar="REGEX", help="How the list's groups are found in names, as in train.")
@click.option("--backend", metavar="NAME", help=BACKEND_HELP)
@click.option(
    "--threshold", "-t", type=float, help="Probability for class 1 of a two-class model.  [default: the model's]"
)
@click.option("--scale", "-s", type=float, help="Image scale of a checkpoint that does not know its own.")
@click.option("--device", help="For torch: auto, cpu, cuda or mps.  [default: auto]")
@click.option("--compute-units", type=COMPUTE_UNITS, help="For coreml.  [default: ane: CPU and Neural Engine]")
@click.option("--include-background", is_flag=True, help="Count the background class in the means.")
@click.option(
    "--flips",
    type=click.Choice(["none", "horizontal", "both"]),
    default="none",
    show_default=True,
    help="Mean over the image and its mirror images; both: also upside down, not for photos of everyday scenes.",
)
@click.option("--batch", type=click.IntRange(1), help="For torch: images of equal size at once.  [default: 8 on a GPU]")
@click.option(
    "--nproc",
    type=click.IntRange(1),
    default=1,
    show_default=True,
    help="Score in so many processes of this machine, each its share of the images; for several machines use torchrun.",
)
@click.option("--per-image", type=OUTPUT, help="Write the scores of every image to this CSV file.")
@click.option("--csv", "per_class", type=OUTPUT, help="Write the scores of every class to this CSV file.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
@click.pass_context
def command(
    ctx: click.Context,
    /,
    model: Path,
    images: Path | None,
    masks: Path | None,
    run: Path | None,
    mask_suffix: str | None,
    list_file: Path | None,
    group_by: str | None,
    backend: str | None,
    threshold: float | None,
    include_background: bool,
    flips: str,
    batch: int | None,
    nproc: int,
    per_image: Path | None,
    per_class: Path | None,
    as_json: bool,
    scale: float | None,
    device: str | None,
    compute_units: str | None,
) -> None:
    """Score MODEL on images with masks: Dice and IoU per class, at the masks' own resolution.

    MODEL is a checkpoint, .onnx or .mlpackage, or a pretrained model's name (listed by unet-edge models).

    A score over all pixels counts those of all images together, so that a large object weighs more than a small
    one; the mean over images gives every image the same weight. A class that is neither in the masks nor
    predicted has no score. The means leave out the background unless --include-background is given.
    """
    from unet_edge.evaluation import default_batch, evaluate
    from unet_edge.image_scores import ImageScores
    from unet_edge_runtime.segmenter import Segmenter

    _check_choice(images, masks, run, mask_suffix, list_file, group_by)
    if nproc > 1 and not is_launched():
        launch(["evaluate", *ctx.obj], nproc)
        return
    given = {"scale": scale, "device": device, "compute_units": compute_units}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    with current().join() as world:
        pairs = world.from_writer(lambda: _pairs(images, masks, run, mask_suffix, list_file, group_by))
        segmenter = Segmenter.open(model, backend, threshold, **options, **_own_part(world, model, backend, device))
        _check_batch(segmenter.backend, batch)
        shown: Iterable[Pair] = pairs
        if world.is_writer:
            tell_what_it_proves(segmenter.backend)
            shown = track(pairs, "evaluate", len(pairs))
        scores = ImageScores(segmenter.spec, include_background)
        at_once, shard = batch or default_batch(segmenter.backend), (world.rank, world.size)
        evaluate(segmenter, shown, flips=flips, shard=shard, batch=at_once, on_image=scores.add)
        for matrices in world.gather(scores.matrices):
            scores.matrices.update(matrices)
    if not world.is_writer:
        return
    if per_image:
        scores.write_images(per_image)
    if per_class:
        scores.write_classes(per_class)
    summary = {**scores.summary(), "flips": flips, "backend": segmenter.backend.name, "model": str(model)}
    if as_json:
        worst = [{"image": name, "dice": dice} for name, dice in scores.worst(WORST)]
        echo_json({**summary, "worst_images": worst})
    else:
        _show(summary, scores.worst(WORST))


def _show(summary: dict[str, Any], worst: list[tuple[str, float]]) -> None:
    width = max(len(c["name"]) for c in summary["classes"])
    click.echo(f"{'':{width}}    Dice     IoU")
    for c in summary["classes"]:
        click.echo(f"{c['name']:{width}}  {_number(c['dice']):>7}  {_number(c['iou']):>7}")
    what = "mean of the classes" if summary["background_in_mean"] else "mean without background"
    each, count = summary["mean_over_images"], summary["images"]
    click.echo(f"over all pixels:   Dice {_number(summary['dice'])}, IoU {_number(summary['iou'])} ({what})")
    click.echo(f"mean over images:  Dice {_number(each['dice'])}, IoU {_number(each['iou'])}{_of(each, count)}")
    click.echo(
        f"pixel accuracy {_number(summary['pixel_accuracy'])}, pixel error {_number(summary['pixel_error'])} "
        f"on {count} images ({summary['backend']})"
    )
    if len(worst) > 1:
        click.echo("lowest Dice: " + ", ".join(f"{name} {dice:.4f}" for name, dice in worst))


def _of(each: dict[str, Any], count: int) -> str:
    return "" if each["scored"] == count else f" ({each['scored']} of {count} images show a class that is scored)"


def _own_part(world: World, model: Path, backend: str | None, device: str | None) -> dict[str, Any]:
    """What the backend is told of a machine that several processes share; on CUDA each of them takes one GPU."""
    from unet_edge.device import pick_device
    from unet_edge_runtime.backend import backend_for

    name = backend or backend_for(model)
    if world.size == 1 or name not in ("onnx", "torch"):
        return {}
    import torch

    if name == "onnx":
        return {"threads": torch.get_num_threads()}  # ONNX Runtime does not look at OMP_NUM_THREADS
    target = world.device(pick_device(device or "auto"))
    if target.type == "cuda":
        torch.cuda.set_device(target)
    return {}


def _check_batch(backend: Backend, batch: int | None) -> None:
    if batch and batch > 1 and backend.name != "torch":
        raise click.UsageError(f"--batch is for torch; {backend.name} takes one image at a time")


def _check_choice(images: Path | None, masks: Path | None, run: Path | None, *others: Path | str | None) -> None:
    if run is None:
        if not (images and masks):
            raise click.UsageError("--images and --masks are needed (or --run RUN)")
    elif images or masks or any(others):
        raise click.UsageError("--run has its own images: give nothing else that chooses some")


def _pairs(
    images: Path | None,
    masks: Path | None,
    run: Path | None,
    mask_suffix: str | None,
    list_file: Path | None,
    group_by: str | None,
) -> list[Pair]:
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.split import Split, split_pairs
    from unet_edge.training.run_folder import RunFolder
    from unet_edge_runtime.errors import DatasetError

    if run is not None:
        return Split.from_dict(RunFolder(run).read_split()).val
    assert images
    assert masks
    pairs, problems = pair_files(images, masks, mask_suffix)
    if problems:
        raise DatasetError(problems)
    return split_pairs(pairs, group_by=group_by, val_list=list_file).val if list_file else pairs


def _number(value: float | None) -> str:
    return "none" if value is None else f"{value:.4f}"
