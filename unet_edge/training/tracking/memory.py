"""`tracking.json` in the run's folder: under which name a tracker knows the run, for when it is resumed."""

from __future__ import annotations

import json
import threading
from pathlib import Path
from typing import Any

from unet_edge_runtime.files import write_json

__all__ = ["recall", "remember"]

FILE = "tracking.json"

_LOCK = threading.Lock()  # each tracker has its thread


def recall(folder: Path, name: str) -> dict[str, Any]:
    """What `remember` kept for a tracker; empty where that is nothing."""
    try:
        kept = json.loads((folder / FILE).read_text(encoding="utf-8"))[name]
    except (OSError, ValueError, KeyError, TypeError):
        return {}
    return kept if isinstance(kept, dict) else {}


def remember(folder: Path, name: str, value: dict[str, Any]) -> None:
    """Keep something for a tracker, beside what is kept for others."""
    with _LOCK:
        try:
            everything = json.loads((folder / FILE).read_text(encoding="utf-8"))
        except (OSError, ValueError):
            everything = {}
        write_json(folder / FILE, {**(everything if isinstance(everything, dict) else {}), name: value})
