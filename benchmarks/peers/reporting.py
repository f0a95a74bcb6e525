"""The last step of a comparison: measure, write the page and the raw results, and say where or what is wrong."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import UnetEdgeError
from unet_edge_runtime.files import write_json, write_text

__all__ = ["measure_and_write"]


def measure_and_write(
    measure: Callable[[], Mapping[str, Any]],
    markdown: Callable[[Mapping[str, Any]], str],
    page: Path,
    raw: Path | None = None,
) -> int:
    """0 and the page's path on standard output, or 1 and one line of what is wrong on standard error.

    Args:
        measure: returns plain data; raises `UnetEdgeError` where something cannot be used.
        markdown: makes the page of it.
        page: file to write.
        raw: file for the plain data, as JSON.
    """
    try:
        results = measure()
        if raw:
            write_json(raw, results)
        write_text(page, markdown(results))
    except (UnetEdgeError, KeyboardInterrupt) as error:
        print(f"error: {error}" if str(error) else "interrupted: nothing was written", file=sys.stderr)
        return 1
    print(page)
    return 0
