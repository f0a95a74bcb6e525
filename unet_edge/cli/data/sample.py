"""`unet-edge data sample`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from unet_edge.cli.common import say, track

__all__ = ["command"]


@click.command(name="sample")
@click.option("-o", "--output", type=click.Path(path_type=Path), default=Path("brain-sample"), show_default=True,
              help="Folder to make.")  # fmt: skip
def command(output: Path) -> None:
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
