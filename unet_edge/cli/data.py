"""`unet-edge data`: check a data set, or make the sample one."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from .common import EXISTING_FOLDER, echo_json, say, track
from .values import MaskValueType

if TYPE_CHECKING:
    from unet_edge.data.scan import Scan
    from unet_edge_runtime.spec import MaskValue

__all__ = ["command"]

SIZES_SHOWN = 5


@click.group(name="data")
def command() -> None:
    """Check a data set, or make the sample one."""


@command.command()
@click.option("--images", type=EXISTING_FOLDER, required=True, help="Folder of the images.")
@click.option("--masks", type=EXISTING_FOLDER, required=True, help="Folder of the masks; may be the same.")
@click.option("--mask-suffix", metavar="TEXT", help="What follows an image's name in its mask's. [default: detected]")
@click.option("--ignore", type=MaskValueType(), help="Mask value that does not count, such as 255 or 255,0,128.")
@click.option("--max-classes", type=click.IntRange(2, 254), default=64, show_default=True,
              help="More mask values than this are a mistake.")  # fmt: skip
@click.option("--json", "as_json", is_flag=True, help="Print JSON.")
def check(
    images: Path, masks: Path, mask_suffix: str | None, ignore: MaskValue | None, max_classes: int, as_json: bool
) -> None:
    """Look into every image and mask, and tell what they hold and all that is wrong.

    Exits with 1 if there are problems.

    \b
    unet-edge data check --images photos --masks masks
    """
    from unet_edge.data.pairing import pair_files
    from unet_edge.data.scan import scan_pairs

    pairs, problems = pair_files(images, masks, mask_suffix)
    scan = scan_pairs(pairs, ignore=ignore, max_classes=max_classes, progress=track)
    problems = [*problems, *scan.problems]
    if as_json:
        echo_json(_report(len(pairs), scan, problems))
    else:
        _print(len(pairs), scan, problems)
    if problems:
        raise click.exceptions.Exit(1)


@command.command()
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("brain-sample"), show_default=True,
              help="Folder to make.")  # fmt: skip
def sample(output: Path) -> None:
    """Make a small real data set: brain MRI slices with grey and white matter.

    It comes from data files inside the package nilearn (`pip install --no-deps nilearn`).
    """
    from unet_edge.data.sample import SAMPLE_CLASSES, make_brain_sample

    images, masks = make_brain_sample(output, track)
    click.echo(images)
    click.echo(masks)
    words: list[object] = ["unet-edge", "train", "--images", images, "--masks", masks, "--val-list", output / "val.txt"]
    words += ["--class-names", ",".join(SAMPLE_CLASSES), "--out", "brain-run"]
    say("Train on it with:\n  " + shlex.join(map(str, words)))


def _report(pairs: int, scan: Scan, problems: list[str]) -> dict[str, Any]:
    total = sum(scan.counts.values())
    return {
        "pairs": pairs,
        "sizes": [{"height": size[0], "width": size[1], "images": count} for size, count in scan.sizes.items()],
        "channels": scan.channels,
        "classes": [
            {"value": value, "pixels": count, "share": count / total, "ignored": value == scan.ignore}
            for value, count in scan.counts.items()
        ],
        "problems": problems,
    }


def _print(pairs: int, scan: Scan, problems: list[str]) -> None:
    from unet_edge.data.scan import format_value

    click.echo(f"pairs     {pairs}")
    if scan.sizes:
        sizes = [f"{height}x{width} ({count})" for (height, width), count in scan.sizes.items()]
        more = f" and {len(sizes) - SIZES_SHOWN} more" if len(sizes) > SIZES_SHOWN else ""
        click.echo(f"sizes     {', '.join(sizes[:SIZES_SHOWN])}{more}  (height x width)")
        click.echo(f"channels  {scan.channels} ({'grey' if scan.channels == 1 else 'colour'})")
    total = sum(scan.counts.values())
    click.echo(f"classes   {len(scan.classes)}")
    # Thousands of values are a problem that is told below, not a table.
    for value, count in list(scan.counts.items())[:254]:
        note = "  ignored" if value == scan.ignore else ""
        click.echo(f"  {format_value(value):>11}  {count / total:7.2%} of pixels{note}")
    click.echo(f"problems  {len(problems) or 'none'}")
    for problem in problems:
        click.echo(f"  - {problem}")
