"""`unet-edge data`: check a data set, download a public one, or make the sample one."""

from __future__ import annotations

import click

from . import check, clear_cache, download, sample

__all__ = ["command"]


@click.group(name="data")
def command() -> None:
    """Check a data set, download a public one, or make the sample one."""


command.add_command(check.command)
command.add_command(clear_cache.command)
command.add_command(download.command)
command.add_command(sample.command)
