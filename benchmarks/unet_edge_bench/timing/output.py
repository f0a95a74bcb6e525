"""The folder with everything that a benchmark leaves."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import write_json, write_text

from .schema import read_results, schema_of

__all__ = ["check_folder", "check_output", "write_output"]

NAMES = ("results.json", "results.md", "index.html")


def check_folder(folder: Path, option: str) -> None:
    """Refuse a folder that can neither be written to nor made, before hours of measuring. Raises `InputError`."""
    there = next(place for place in (folder, *folder.parents) if place.exists())
    if not there.is_dir():
        raise InputError(f"{there}: is a file: choose another {option}")
    try:
        # Only doing it tells: what the permissions say need not hold.
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        raise InputError(f"{folder}: cannot be written to ({error.strerror}): choose another {option}") from None


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
    """Write results.json, results.md and index.html; results that are there already stay under a name of their own.

    Returns:
        The page.

    Raises:
        InputError: as `check_output`, or the folder cannot be written to.
        MissingExtraError: jinja2 is not installed; the other two files are written.
    """
    from unet_edge_bench.report import markdown, write_html

    check_output(folder)
    _keep(folder / "results.json")
    write_json(folder / "results.json", results)
    write_text(folder / "results.md", markdown(dict(results)))
    page = folder / "index.html"
    write_html(dict(results), page)
    return page


def _keep(results: Path) -> None:
    """Give earlier results the name of the time when they were measured, such as results-20261122T204509.json."""
    if results.exists():
        created = re.sub(r"[^0-9T]", "", str(read_results(results)["created"]))[:15]
        results.replace(results.with_name(f"results-{created}.json"))
