"""The folder with everything that a benchmark leaves."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import atomic_path, write_json

from .schema import schema_of

__all__ = ["check_folder", "check_output", "write_output"]

NAMES = ("results.json", "results.md", "index.html")


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that can neither be written to nor made, before hours of measuring. Raises `InputError`."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file: choose another {option}")
    if not os.access(there, os.W_OK):
        raise InputError(f"{there}: cannot be written to: choose another {option}")


def check_output(folder: Path) -> None:
    """Refuse a place where something else would be overwritten, or nothing can be written.

    Raises:
        InputError: it is a file, cannot be written to, or holds files of these names that no benchmark wrote.
    """
    check_folder(folder, "--output")
    there = [name for name in NAMES if (folder / name).exists()]
    if there and not str(schema_of(folder / "results.json")).startswith("unet-edge-benchmark/"):
        raise InputError(f"{folder}: holds a {there[0]} that is not a benchmark's: choose another --output")


def write_output(results: Mapping[str, Any], folder: Path) -> Path:
    """Write results.json, results.md and index.html.

    Returns:
        The page.

    Raises:
        InputError: as `check_output`, or the folder cannot be written to.
        MissingExtraError: jinja2 is not installed; the other two files are written.
    """
    from unet_edge_bench.report import markdown, write_html

    check_output(folder)
    write_json(folder / "results.json", results)
    with atomic_path(folder / "results.md") as temporary:
        temporary.write_text(markdown(dict(results)), encoding="utf-8")
    page = folder / "index.html"
    write_html(dict(results), page)
    return page
