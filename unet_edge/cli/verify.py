"""`unet-edge verify`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import COMPUTE_UNITS, EXISTING_FOLDER, MODEL_FILE, echo_json, say, track

if TYPE_CHECKING:
    from unet_edge_bench.verify import Sample, SavedOutputs, Side, Verification
    from unet_edge_runtime.errors import UnetEdgeError

SHARE = click.FloatRange(0, 1)
FILE = click.Path(dir_okay=False, path_type=Path)
FOLDER = click.Path(file_okay=False, path_type=Path)


@click.command(epilog="Example: unet-edge verify run/best.pth run/best.onnx run/best.mlpackage --images photos")
@click.argument("reference", type=MODEL_FILE)
@click.argument("candidates", nargs=-1, type=MODEL_FILE, metavar="CANDIDATE...")
@click.option("--images", type=EXISTING_FOLDER, help="Folder of images; not needed where both sides are saved outputs.")
@click.option("--masks", type=EXISTING_FOLDER, help="Folder of true masks: each side is scored as well.")
@click.option("--mask-suffix", help="What masks have after the image's name.  [default: found by itself]")
@click.option("--limit", type=click.IntRange(1), help="Compare on this many images, evenly spread.")
@click.option("--save-outputs", type=FOLDER, help="Write each model's outputs here, to be compared later or elsewhere.")
@click.option("--layers", is_flag=True, help="Compare layer by layer as well, on the worst image.")
@click.option("--max-logit-difference", type=click.FloatRange(0), help="Instead of the tolerance of the precision.")
@click.option("--min-equal-labels", type=SHARE, help="Instead of the tolerance of the precision; 0 to 1.")
@click.option("--min-dice", type=SHARE, help="Least Dice between the two predictions; 0 to 1.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the bootstrap.")
@click.option("--scale", "-s", type=float, help="Image scale of a checkpoint that does not know its own.")
@click.option("--compute-units", type=COMPUTE_UNITS, help="For coreml.  [default: ane: CPU and Neural Engine]")
@click.option("--html", type=FILE, help="Write a page with difference maps of the worst images.")
@click.option("--json", "as_json", is_flag=True, help="Print the results as JSON.")
def command(
    reference: Path,
    candidates: tuple[Path, ...],
    images: Path | None,
    masks: Path | None,
    mask_suffix: str | None,
    limit: int | None,
    save_outputs: Path | None,
    layers: bool,
    max_logit_difference: float | None,
    min_equal_labels: float | None,
    min_dice: float | None,
    seed: int,
    scale: float | None,
    compute_units: str | None,
    html: Path | None,
    as_json: bool,
) -> None:
    """Do models compute the same? Compare each CANDIDATE with REFERENCE on the same real images.

    Each is a checkpoint, .onnx, .mlpackage, or a folder that --save-outputs wrote, here or on another machine. A Core
    ML package runs through Core ML on a Mac, elsewhere through the reference interpreter, which proves the file, not
    the device's arithmetic. Without a CANDIDATE, --save-outputs only saves.

    Passes, with exit code 0, where outputs and labels agree within what the candidate's precision explains; else the
    exit code is 1, and the reason is named.
    """
    from unet_edge_bench.verify import Overrides, compare

    if not candidates and not save_outputs:
        raise click.UsageError("give a CANDIDATE to compare with, or --save-outputs")
    sides = [_open(path, scale=scale, compute_units=compute_units) for path in (reference, *candidates)]
    _tell_apart(sides, (reference, *candidates))
    samples, absent = _samples(sides, images, masks, mask_suffix, limit)
    if save_outputs:
        sides = _recorded(sides, save_outputs)
    if not candidates:
        _save_only(sides[0], samples)
        return
    overrides = Overrides(max_logit_difference, min_equal_labels, min_dice)
    result = compare(sides[0], sides[1:], samples, overrides, seed, lambda items: track(items, "verify", len(items)))
    result.failures += absent
    trouble = _compare_layers(result, quiet=as_json) if layers else None
    _tell(result, html, as_json)
    if trouble:
        raise trouble
    sys.exit(0 if result.passed else 1)


def _open(path: Path, **options: Any) -> Side:
    from unet_edge_bench.verify import Model, SavedOutputs

    saved = path.is_dir() and path.suffix.lower() != ".mlpackage"
    return SavedOutputs(path) if saved else Model.open(path, **options)


def _tell_apart(sides: list[Side], paths: tuple[Path, ...]) -> None:
    """Give files of one name, such as two runs' best.pth, the names of their folders too."""
    places: dict[str, set[Path]] = {}
    live = [(side, path.resolve()) for side, path in zip(sides, paths, strict=True) if side.model is not None]
    for _, path in live:
        places.setdefault(path.name, set()).add(path)
    for side, path in live:
        if len(places[path.name]) > 1:
            side.name = f"{path.parent.name}/{path.name}"


def _samples(
    sides: list[Side], images: Path | None, masks: Path | None, mask_suffix: str | None, limit: int | None
) -> tuple[list[Sample], list[str]]:
    """The images to compare on, and a line for each folder of saved outputs that lacks some."""
    from unet_edge_bench.verify import SavedOutputs, common_samples

    saved: list[SavedOutputs] = [side for side in sides if isinstance(side, SavedOutputs)]
    if images is None and (masks or len(saved) < len(sides)):
        raise click.UsageError("--images is needed: a folder of real images")
    samples = None if images is None else _image_samples(images, masks, mask_suffix)
    if not saved:
        assert samples is not None
        return _spread(samples, limit), []
    found, absent = common_samples(saved, samples)
    return _spread(found, limit), absent


def _image_samples(images: Path, masks: Path | None, mask_suffix: str | None) -> list[Sample]:
    from unet_edge.data.pairing import pair_files
    from unet_edge_bench.verify import samples_of
    from unet_edge_runtime.errors import DatasetError
    from unet_edge_runtime.image import image_files
    from unet_edge_runtime.targets import is_written_by_us

    if masks is None:
        files = image_files(images)
        return samples_of([path for path in files if not is_written_by_us(path, files)])
    pairs, problems = pair_files(images, masks, mask_suffix)
    if problems:
        raise DatasetError(problems)
    return samples_of([pair.image for pair in pairs], [pair.mask for pair in pairs])


def _spread(samples: list[Sample], limit: int | None) -> list[Sample]:
    if limit is None or len(samples) <= limit:
        return samples
    return [samples[i * len(samples) // limit] for i in range(limit)]


def _recorded(sides: list[Side], folder: Path) -> list[Side]:
    """Each model with a folder for its outputs: the one given, or one inside it for each of several."""
    from unet_edge_bench.verify import Recording

    live = [side for side in sides if side.model is not None]
    if len(live) < 2:
        folders = [folder] * len(live)
    else:
        names = [side.name for side in live]
        folders = [folder / (name if names.count(name) == 1 else f"{i}-{name}") for i, name in enumerate(names)]
    places = {id(side): place for side, place in zip(live, folders, strict=True)}
    return [Recording(side.model, places[id(side)]) if side.model else side for side in sides]


def _save_only(side: Side, samples: list[Sample]) -> None:
    from unet_edge_bench.verify import Recording, record

    if not isinstance(side, Recording):
        raise click.UsageError("these are saved outputs already: give a model")
    failures = record(side, samples, lambda items: track(items, "run", len(items)))
    for failure in failures:
        say(f"left out: {failure}")
    click.echo(f"{side.folder}: outputs of {side.name} for {len(samples) - len(failures)} images")
    sys.exit(1 if failures else 0)


def _compare_layers(result: Verification, quiet: bool) -> UnetEdgeError | None:
    """Add what the layers tell to the results; the first error, to be told after them."""
    from unet_edge_bench.verify.layerwise import layers_of
    from unet_edge_runtime.errors import UnetEdgeError

    trouble = None
    for pair in result.pairs:
        try:
            pair.layers = pair.layers or layers_of(pair)
        except UnetEdgeError as error:
            trouble = trouble or error
            continue
        if pair.layers.first is not None and not pair.problems:
            pair.problems.append(f"layer {pair.layers.first.name} departs by more than rounding")
            pair.reasons.append(pair.layers.reason.rstrip("."))
        if not quiet:
            click.echo(f"{pair.layers.table()}\n")
    return trouble


def _tell(result: Verification, html: Path | None, as_json: bool) -> None:
    from unet_edge_bench.verify.text import text

    if as_json:
        echo_json(result.to_dict())
    else:
        click.echo(text(result))
    if html is not None:
        from unet_edge_bench.verify.page import write_page

        write_page(result, html)
        say(f"page: {html}")
