"""`unet-edge evaluate`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from .common import BACKEND_HELP, COMPUTE_UNITS, EXISTING_FOLDER, MODEL_FILE, echo_json, tell_what_it_proves, track

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(epilog="Example: unet-edge evaluate run/best.onnx --images photos --masks masks")
@click.argument("model", type=MODEL_FILE)
@click.option("--images", type=EXISTING_FOLDER, help="Folder of images.")
@click.option("--masks", type=EXISTING_FOLDER, help="Folder of masks.")
@click.option("--run", type=EXISTING_FOLDER, help="Instead of folders: the validation images of this run.")
@click.option("--mask-suffix", help="What masks have after the image's name.  [default: found by itself]")
@click.option("--list", "list_file", type=FILE, help="File with the names (or groups) to score; by default all.")
@click.option("--group-by", metavar="REGEX", help="How the list's groups are found in names, as in train.")
@click.option("--backend", metavar="NAME", help=BACKEND_HELP)
@click.option("--threshold", "-t", type=float, help="Probability for class 1 of a two-class model.")
@click.option("--scale", "-s", type=float, help="Image scale of a checkpoint that does not know its own.")
@click.option("--device", help="For torch: auto, cpu, cuda or mps.")
@click.option("--compute-units", type=COMPUTE_UNITS, help="For coreml.  [default: ane: CPU and Neural Engine]")
@click.option("--include-background", is_flag=True, help="Count the background class in the means.")
@click.option("--json", "as_json", is_flag=True, help="Print the scores as JSON.")
def command(
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
    as_json: bool,
    scale: float | None,
    device: str | None,
    compute_units: str | None,
) -> None:
    """Score MODEL on images with masks: Dice and IoU per class, at the masks' own resolution.

    Pixels are counted over all images together. A class that is neither in the masks nor predicted has no score.
    The means leave out the background unless --include-background is given.
    """
    from unet_edge.evaluation import scores_of
    from unet_edge_runtime.segmenter import Segmenter

    given = {"scale": scale, "device": device, "compute_units": compute_units}
    options: dict[str, Any] = {k: v for k, v in given.items() if v is not None}
    pairs = _pairs(images, masks, run, mask_suffix, list_file, group_by)
    segmenter = Segmenter.open(model, backend, threshold, **options)
    tell_what_it_proves(segmenter.backend)
    scores = scores_of(segmenter, pairs, include_background, lambda items: track(items, "evaluate", len(items)))
    if as_json:
        echo_json(scores)
        return
    width = max(len(c["name"]) for c in scores["classes"])
    click.echo(f"{'':{width}}    Dice     IoU")
    for c in scores["classes"]:
        click.echo(f"{c['name']:{width}}  {_number(c['dice'])}  {_number(c['iou'])}")
    what = "mean" if scores["background_in_mean"] else "mean without background"
    click.echo(f"{what}: Dice {_number(scores['dice'])}, IoU {_number(scores['iou'])}")
    click.echo(f"pixel accuracy {_number(scores['pixel_accuracy'])} on {scores['images']} images ({scores['backend']})")


def _pairs(
    images: Path | None,
    masks: Path | None,
    run: Path | None,
    mask_suffix: str | None,
    list_file: Path | None,
    group_by: str | None,
) -> list[Any]:
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.split import Split, split_pairs
    from unet_edge.training.run_folder import RunFolder
    from unet_edge_runtime.errors import DatasetError

    if run is not None:
        if images or masks:
            raise click.UsageError("give --run, or --images and --masks")
        return Split.from_dict(RunFolder(run).read_split()).val
    if not (images and masks):
        raise click.UsageError("--images and --masks are needed (or --run RUN)")
    pairs, problems = pair_files(images, masks, mask_suffix)
    if problems:
        raise DatasetError(problems)
    return split_pairs(pairs, group_by=group_by, val_list=list_file).val if list_file else pairs


def _number(value: float | None) -> str:
    return "   none" if value is None else f"{value:7.4f}"
