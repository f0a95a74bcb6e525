"""What several commands share: options, progress, JSON."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, TypeVar

import click

__all__ = ["COMPUTE_UNITS", "EXISTING_FOLDER", "MODEL_FILE", "SizeType", "echo_json", "say", "track"]

T = TypeVar("T")

MODEL_FILE = click.Path(exists=True, path_type=Path)
COMPUTE_UNITS = click.Choice(["cpu", "gpu", "ane", "all"])
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class SizeType(click.ParamType):  # type: ignore[type-arg]
    """HxW, such as 320x480: height first, as in arrays."""

    name = "HxW"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[int, int]:
        """Parse "320x480" into (320, 480)."""
        if isinstance(value, tuple):
            return value
        height, x, width = str(value).lower().partition("x")
        if not (x and height.isdigit() and width.isdigit() and int(height) and int(width)):
            self.fail(f"{value!r} is not HEIGHTxWIDTH, such as 320x480", param, ctx)
        return int(height), int(width)


def track(
    items: Iterable[T], label: str, length: int | None = None, show: Callable[[T | None], str] | None = None
) -> Iterator[T]:
    """Go through `items` under a progress bar on standard error; silent when that is not a terminal."""
    if not sys.stderr.isatty():
        yield from items
        return
    with click.progressbar(items, length=length, label=label, file=sys.stderr, item_show_func=show) as bar:
        yield from bar


def say(message: str) -> None:
    """A line for people, on standard error, so that standard output stays for results."""
    click.echo(message, err=True)


def echo_json(value: Any) -> None:
    """A result for machines, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
