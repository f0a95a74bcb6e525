"""Models that come with the package, found by name.

Each is three files in `models/`: NAME.onnx with its spec inside, NAME.md, its card, and NAME.json with what a list
needs: purpose, licence, scores, and the size and SHA-256 that the model must have.
"""

from __future__ import annotations

import atexit
import contextlib
import difflib
import json
import os
from dataclasses import dataclass
from importlib.resources import as_file, files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import InputError, ModelFileError
from .files import sha256_of

if TYPE_CHECKING:
    from importlib.abc import Traversable

__all__ = ["Pretrained", "find_model", "pretrained", "pretrained_names"]

MODELS = "models"


@dataclass(frozen=True)
class Pretrained:
    """A shipped model, as its NAME.json describes it.

    Attributes:
        name: what commands call it.
        purpose: what it segments, in a few words.
        licence: of the weights.
        sha256: of the file.
        bytes: of the file.
        scores: on its validation images: dice and iou without background, and the number of images.
    """

    name: str
    purpose: str
    licence: str
    sha256: str
    bytes: int
    scores: dict[str, Any]

    @property
    def card(self) -> Path:
        """The file that tells how it was made, how good it is, and what it is not for."""
        return _as_path(_folder() / f"{self.name}.md")

    @property
    def path(self) -> Path:
        """The model's file, after a check of its content.

        Raises:
            ModelFileError: it is missing, or is not the file that was shipped.
        """
        found = _as_path(_folder() / f"{self.name}.onnx")
        if not found.is_file() or sha256_of(found) != self.sha256:
            raise ModelFileError(
                f"{found}: the pretrained model {self.name} is damaged: its content is not what was shipped; "
                "install unet-edge again"
            )
        return found


def pretrained_names() -> list[str]:
    """Names of the models that come with the package, sorted."""
    folder = _folder()
    entries = folder.iterdir() if folder.is_dir() else ()
    return sorted(entry.name.removesuffix(".json") for entry in entries if entry.name.endswith(".json"))


def pretrained(name: str) -> Pretrained:
    """What is known of a shipped model.

    Raises:
        InputError: no such model; the message lists those that there are.
        ModelFileError: its description is damaged.
    """
    if name not in pretrained_names():
        raise InputError(f"{name}: {_no_such_name(name)}")
    entry = _folder() / f"{name}.json"
    try:
        return Pretrained(name=name, **json.loads(entry.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        raise ModelFileError(
            f"{entry}: the description of the pretrained model {name} is damaged; install unet-edge again"
        ) from None


def find_model(model: Path | str) -> Path:
    """The file of a model that is given by its path or, if it is a pretrained one, by its name.

    A file of that name wins over a pretrained model, and so does a .mlpackage. Another folder does not: it is rather
    somebody's images; `./NAME` means the folder.

    Raises:
        InputError: neither; the message lists the names.
        ModelFileError: the pretrained model is damaged.
    """
    text, path = os.fspath(model), Path(model)
    if path.is_file():
        return path
    if text in pretrained_names():
        return pretrained(text).path
    if path.exists():
        return path
    is_name = path.name == text and not path.suffix
    raise InputError(f"{text}: no such model file" + (f", and {_no_such_name(text)}" if is_name else ""))


def _no_such_name(name: str) -> str:
    names = pretrained_names()
    close = difflib.get_close_matches(name.lower(), names, n=1)
    hint = f" (did you mean {close[0]}?)" if close else ""
    return f"no pretrained model of that name{hint}; there is {', '.join(names) or 'none'}"


def _folder() -> Traversable:
    return files("unet_edge_runtime") / MODELS


_unpacked = contextlib.ExitStack()
atexit.register(_unpacked.close)


def _as_path(entry: Traversable) -> Path:
    """Where a shipped file lies; out of a zip archive it is unpacked until the process ends."""
    return entry if isinstance(entry, Path) else _unpacked.enter_context(as_file(entry))
