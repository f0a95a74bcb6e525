"""`unet-edge data download`."""

from __future__ import annotations

import shlex
from pathlib import Path

import click

from unet_edge.cli.common import say, track

__all__ = ["command"]

FILE = click.Path(exists=True, dir_okay=False, path_type=Path)


@click.command(name="download")
@click.argument("name", required=False)
@click.option("-o", "--output", type=click.Path(path_type=Path), help="Folder to make.  [default: NAME]")
@click.option("--from", "given", type=FILE, multiple=True, help="Archive downloaded by hand; may be repeated.")
@click.option("--keep-archives", is_flag=True, help="Leave the downloaded archives in the folder.")
@click.option("--list", "listed", is_flag=True, help="List the data sets, their sizes and licences.")
def command(name: str | None, output: Path | None, given: tuple[Path, ...], keep_archives: bool, listed: bool) -> None:
    """Download the public data set NAME (oxford-pet, dsb2018 or carvana): images/, masks/ and val.txt, a split.

    Its licence is shown first. A download that was interrupted goes on where it stopped. Kaggle wants an account
    for carvana: set KAGGLE_USERNAME and KAGGLE_KEY, or give archives that you downloaded by hand with --from.

    \b
    unet-edge data download oxford-pet
    unet-edge data download carvana --from train.zip --from train_masks.zip
    """
    from unet_edge.data.download.catalogue import CATALOGUE
    from unet_edge.data.download.download import download

    if listed:
        for entry in CATALOGUE.values():
            click.echo(f"{entry.name:12}{entry.title}, {entry.pairs:,} pairs\n{'':12}licence: {entry.licence}")
        return
    if name is None:
        raise click.UsageError("which data set? --list shows them")
    folder = output or Path(name)
    entry = download(name, folder, given=given, keep_archives=keep_archives, progress=track, say=say)
    images, masks = folder / "images", folder / "masks"
    click.echo(images)
    click.echo(masks)
    words: list[object] = ["unet-edge", "train", "--images", images, "--masks", masks, "--val-list", folder / "val.txt"]
    words += ["--ignore", entry.ignore] if entry.ignore is not None else []
    say("Train on it with:\n  " + shlex.join(map(str, [*words, "--out", f"{name}-run"])))
