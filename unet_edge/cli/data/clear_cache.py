"""`unet-edge data clear-cache`."""

from __future__ import annotations

import click

__all__ = ["command"]


@click.command(name="clear-cache")
def command() -> None:
    """Delete the prepared images that `train --cache disk` keeps."""
    from unet_edge.data.disk_store import clear, prepared_folder

    folder = prepared_folder()
    click.echo(f"{folder}: {clear() / 1e6:.0f} MB freed")
