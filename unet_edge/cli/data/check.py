"""`unet-edge data check`: the data doctor."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from unet_edge.cli.common import EXISTING_FOLDER, echo_json, say, track
from unet_edge.cli.sections import SectionedHelp, section
from unet_edge.cli.values import MaskValueType
from unet_edge_runtime.errors import InputError

if TYPE_CHECKING:
    from unet_edge.data.doctor.diagnose import Diagnosis
    from unet_edge.data.pairing import Pair
    from unet_edge.data.split import Split
    from unet_edge_runtime.spec import MaskValue

__all__ = ["command"]

SIZES_SHOWN = 5
VALUES_SHOWN = 254  # thousands of values are a problem that is told, not a table
FILE = click.Path(exists=True, dir_okay=False, path_type=Path)
CHOOSES_IMAGES = {"validation", "group_by", "val_list", "val_images", "val_masks", "seed", "mask_suffix"}
OUTPUT = click.Path(dir_okay=False, path_type=Path)

data, training, output = section("Data"), section("As in train"), section("Output")


@click.command(name="check", cls=SectionedHelp)
@data("--images", type=EXISTING_FOLDER, help="Folder of images; needed unless --run is given.")
@data("--masks", type=EXISTING_FOLDER, help="Folder of masks; may be that of the images.")
@data("--run", type=EXISTING_FOLDER, help="Instead of folders: the images and the split of this run.")
@data(
    "--mask-suffix",
    metavar="TEXT",
    help="What masks have after the image's name, such as _mask.  [default: found by itself]",
)
@data("--ignore", type=MaskValueType(), help="Mask value that does not count (void), such as 255 or 255,0,128.")
@data("--no-background", is_flag=True, help="The first class is not a background: it has objects, too.")
@data("--max-classes", type=click.IntRange(2, 254), default=64, show_default=True,
      help="More mask values than this are taken for a mistake.")  # fmt: skip
@training("--scale", "-s", type=click.FloatRange(0, 16, min_open=True), default=0.5, show_default=True,
          help="Factor on both sides of every image: which objects would it erase?")  # fmt: skip
@training("--validation", "-v", type=click.FloatRange(0, 90), default=10.0, show_default=True,
          help="Percent that validates; 0 for no split.")  # fmt: skip
@training("--group-by", metavar="REGEX", help="Images whose names agree in what this matches stay on one side.")
@training("--val-list", type=FILE, help="File with the names (or groups) that validate, one a line.")
@training("--val-images", type=EXISTING_FOLDER, help="Folder of validation images, instead of a split.")
@training("--val-masks", type=EXISTING_FOLDER, help="Folder of their masks.")
@training("--seed", type=int, default=0, show_default=True, help="Of the split.")
@output("--report", type=OUTPUT, metavar="FILE.html", help="Write a page with pictures of what looks wrong.")
@output("--sheet", type=OUTPUT, metavar="FILE.png", help="Write a contact sheet, the suspicious pairs first.")
@output("--strict", is_flag=True, help="Exit with 1 on suspicions too.")
@output("--json", "as_json", is_flag=True, help="Print all of it as JSON.")
def command(
    images: Path | None,
    masks: Path | None,
    run: Path | None,
    report: Path | None,
    sheet: Path | None,
    strict: bool,
    as_json: bool,
    **options: Any,
) -> None:
    """Look into every image and mask: tell what they hold, all that is wrong, and all that looks wrong.

    Problems would stop or spoil a training, and exit with 1. Suspicions are for your eyes: leaks from training to
    validation, twins, masks that fit their image badly, objects too small for the scale, rare classes, dark or empty
    pictures.

    \b
    unet-edge data check --images photos --masks masks --scale 0.25 --report check.html
    """
    if run is not None and (images or masks):
        raise click.UsageError("give --run, or --images and --masks")
    if run is None and not (images and masks):
        raise click.UsageError("--images and --masks are needed (or --run RUN)")
    if bool(options["val_images"]) != bool(options["val_masks"]):
        raise click.UsageError("--val-images and --val-masks need each other")
    diagnosis = _diagnose(images, masks, run, options)
    if as_json:
        echo_json(diagnosis.to_dict())
    else:
        _print(diagnosis)
    _write(diagnosis, report, sheet)
    if diagnosis.problems or (strict and diagnosis.suspicions):
        raise click.exceptions.Exit(1)


def _diagnose(images: Path | None, masks: Path | None, run: Path | None, options: dict[str, Any]) -> Diagnosis:
    from unet_edge.data.doctor.diagnose import diagnose
    from unet_edge.data.scan import scan_pairs

    options = _as_trained(run, options) if run else options
    pairs, problems, split, split_is = _from_run(run) if run else _from_folders(images, masks, options)
    ignore, most = options["ignore"], options["max_classes"]
    scan = scan_pairs(pairs, ignore=ignore, max_classes=most, progress=track)
    problems = [*problems, *scan.problems, *_unseen(split if options["val_images"] else None, ignore, most)]
    return diagnose(
        pairs, scan, problems, split, split_is,
        scale=options["scale"], has_background=not options["no_background"], progress=track,
    )  # fmt: skip


def _as_trained(run: Path, options: dict[str, Any]) -> dict[str, Any]:
    """The run's own scale, ignored value and classes, where the command line says nothing else.

    Raises:
        click.UsageError: the command line divides the data, which the run has done.
        InputError: the run's configuration cannot be read.
    """
    from unet_edge.training.run_folder import RunFolder

    source, typed = click.get_current_context().get_parameter_source, click.core.ParameterSource.COMMANDLINE
    given = {name for name in options if source(name) is typed}
    if lost := sorted(given & CHOOSES_IMAGES):
        raise click.UsageError(f"--run has its own images and split: leave --{lost[0].replace('_', '-')} out")
    config = RunFolder(run).read_config()
    try:
        data, ignore = config["data"], config["data"]["ignore"]
        found = {
            "scale": config["network"]["scale"],
            "max_classes": data["max_classes"],
            "ignore": tuple(ignore) if isinstance(ignore, list) else ignore,
            "no_background": not data["has_background"],
        }
    except (KeyError, TypeError):
        raise InputError(f"{RunFolder(run).config}: damaged: give --images and --masks instead of --run") from None
    return {**options, **{name: value for name, value in found.items() if name not in given}}


def _from_run(run: Path) -> tuple[list[Pair], list[str], Split | None, str]:
    from unet_edge.data.doctor.splits import read_run_split
    from unet_edge.data.split import Split

    split = read_run_split(run)
    trained = {pair.name for pair in split.train}
    if any(pair.name in trained for pair in split.val):  # two folders may use the same names
        val = [replace(pair, name=f"{pair.image.parent.name}/{pair.name}") for pair in split.val]
        split = Split(split.train, val)
    return sorted([*split.train, *split.val], key=lambda pair: pair.name), [], split, f"as in {run}"


def _from_folders(
    images: Path | None, masks: Path | None, options: dict[str, Any]
) -> tuple[list[Pair], list[str], Split | None, str]:
    from unet_edge.data.doctor.splits import SplitOptions, make_split
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.split import Split

    assert images
    assert masks
    pairs, problems = pair_files(images, masks, options["mask_suffix"])
    if val_images := options["val_images"]:
        val, more = pair_files(val_images, options["val_masks"], options["mask_suffix"])
        # Both folders may use the same names.
        val = [replace(pair, name=f"{val_images.name}/{pair.name}") for pair in val]
        return [*pairs, *val], [*problems, *more], Split(pairs, val), f"those of {val_images}"
    chosen = SplitOptions(options["validation"], options["group_by"], options["val_list"], options["seed"])
    return pairs, problems, make_split(pairs, chosen), chosen.describe()


def _unseen(split: Split | None, ignore: MaskValue | None, max_classes: int) -> list[str]:
    """Values of the validation folder that training never sees; `train` refuses them."""
    from unet_edge.data.scan import check_values, scan_pairs

    if split is None:
        return []
    train, val = (scan_pairs(pairs, ignore=ignore, max_classes=max_classes) for pairs in (split.train, split.val))
    by_file = {str(pair.mask): val.values_by_mask[pair.name] for pair in split.val if pair.name in val.values_by_mask}
    return check_values(by_file, train.classes, ignore)


def _write(diagnosis: Diagnosis, report: Path | None, sheet: Path | None) -> None:
    from unet_edge.data.doctor.page import write_page
    from unet_edge.data.doctor.pictures import write_sheet

    if sheet:
        write_sheet(diagnosis, sheet)
        say(f"contact sheet: {sheet}")
    if report:
        write_page(diagnosis, report)
        say(f"page: {report}")


def _print(diagnosis: Diagnosis) -> None:
    from unet_edge.data.scan import format_value

    scan = diagnosis.scan
    click.echo(f"pairs     {len(diagnosis.looks)}")
    if scan.sizes:
        sizes = [f"{height}x{width} ({count})" for (height, width), count in scan.sizes.items()]
        more = f" and {len(sizes) - SIZES_SHOWN} more" if len(sizes) > SIZES_SHOWN else ""
        click.echo(f"sizes     {', '.join(sizes[:SIZES_SHOWN])}{more}  (height x width)")
        click.echo(f"channels  {scan.channels} ({'grey' if scan.channels == 1 else 'colour'}), {scan.bits} bits")
    if diagnosis.split:
        sides = f"{len(diagnosis.split.train)} train, {len(diagnosis.split.val)} validate"
        click.echo(f"split     {sides}  ({diagnosis.split_is})")
    click.echo(f"classes   {len(scan.classes)}")
    for info in diagnosis.classes[:VALUES_SHOWN]:
        share = "ignored          " if info.ignored else f"{info.share:7.2%} of pixels"
        objects = f"  {info.objects} objects, {info.lost} under 2 pixels at scale {diagnosis.scale:g}"
        objects = "" if info.ignored or info.value == diagnosis.background else objects
        click.echo(f"  {format_value(info.value):>11}  {share}  in {info.images} masks{objects}")
    for title, lines in (
        ("problems  ", diagnosis.problems),
        ("suspicions", [f"{suspicion.kind}: {suspicion.text}" for suspicion in diagnosis.suspicions]),
    ):
        click.echo(f"{title}{'' if title[-1] == ' ' else ' '}{len(lines) or 'none'}")
        for line in lines:
            click.echo(f"  - {line}")
