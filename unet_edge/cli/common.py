"""What several commands share: options, progress, JSON."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import click

__all__ = [
    "BACKEND_HELP",
    "COMPUTE_UNITS",
    "EXISTING_FOLDER",
    "MODEL_FILE",
    "ModelType",
    "SizeType",
    "echo_json",
    "say",
    "tell_what_it_proves",
    "track",
]

if TYPE_CHECKING:
    from unet_edge_runtime.backend import Backend

T = TypeVar("T")

BACKEND_HELP = (
    "torch, onnx, coreml (on a Mac), or coreml-ref: a Core ML package on any machine, which proves the file, not the "
    "device's arithmetic.  [default: by the model's kind]"
)
COMPUTE_UNITS = click.Choice(["cpu", "gpu", "ane", "all"])
EXISTING_FOLDER = click.Path(exists=True, file_okay=False, path_type=Path)


class ModelType(click.Path):
    """A model's file, or the name of one that comes with the package."""

    name = "model"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Path:
        """Turn what was typed into the file's path, and say so where a name can mean two things."""
        from unet_edge_runtime.errors import InputError
        from unet_edge_runtime.pretrained import find_model, pretrained_names

        given = os.fspath(value)
        try:
            path = find_model(given)
        except InputError as error:
            self.fail(str(error), param, ctx)
        if given in pretrained_names() and Path(given).exists():
            which = "the file here" if path == Path(given) else f"the pretrained model; the folder here is ./{given}"
            say(f"{given} is {which}")
        return path


MODEL_FILE = ModelType(path_type=Path)


class SizeType(click.ParamType):  # type: ignore[type-arg]
    """HxW, such as 320x480: height first, as in arrays."""

    name = "HxW"

    def get_metavar(self, param: click.Parameter, ctx: click.Context | None = None) -> str:
        """The name as it is, since an X would not do."""
        return self.name

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


def tell_what_it_proves(backend: Backend) -> None:
    """A line on what a backend's results stand for, where that is not the runtime itself."""
    if backend.proves:
        say(f"{backend.name} {backend.proves}")


def echo_json(value: Any) -> None:
    """A result for machines, on standard output."""
    click.echo(json.dumps(value, indent=2, ensure_ascii=False))
