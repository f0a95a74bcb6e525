"""`unet-edge demo`."""

from __future__ import annotations

from pathlib import Path

import click

from .common import say, track


@click.command(epilog="Example: unet-edge demo -o demo")
@click.option(
    "--output",
    "-o",
    type=click.Path(file_okay=False, path_type=Path),
    default=Path("demo"),
    show_default=True,
    help="Folder for everything.",
)
@click.option("--epochs", "-e", type=click.IntRange(1), help="Passes over the training images.  [default: 8]")
@click.option("--force", is_flag=True, help="Start anew instead of using what is there.")
def command(output: Path, epochs: int | None, force: bool) -> None:
    """Train, export, predict and compare on real images, and show it on one page.

    A small U-Net learns tissues of the brain in about a minute, becomes ONNX and Core ML, and segments images that it
    has not seen through every backend that runs here. The command fails if the scores stay low or the backends
    disagree. What an earlier or interrupted run left is used again.

    The images come from data files inside the package nilearn (`pip install --no-deps nilearn`).
    """
    from unet_edge_bench.demo import run_demo

    from .progress import ConsoleReporter

    page = run_demo(output, epochs=epochs, force=force, reporter=ConsoleReporter(), progress=track, say=say)
    say("open this page in a browser:")
    click.echo(page.absolute())
