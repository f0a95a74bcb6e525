"""Outputs that were saved in a folder, perhaps elsewhere: nothing in it is trusted."""

from __future__ import annotations

import json
import math
import re
import zipfile
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.image import MAX_PIXELS
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import scaled_size

from .sides import Output, Sample, Side

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["INDEX", "SCHEMA", "SavedOutputs", "common_samples", "read_output"]

SCHEMA = "unet-edge-outputs/1"
INDEX = "outputs.json"
MEMBER = "output.npy"
MAX_INDEX = 1 << 28  # bytes of an index: a million images
MAX_OUTPUT = 1 << 31  # bytes of one output


class SavedOutputs(Side):
    """What `collect` wrote; nothing in the folder is trusted.

    Args:
        folder: holds `outputs.json` and `<sha256 of an image>.npz`.

    Attributes:
        folder: as given.
        images: (height, width) by the images' sha256.
        names: the images' names by sha256.

    Raises:
        InputError: no such folder, damaged, or made by something else.
    """

    def __init__(self, folder: Path) -> None:
        self.folder, data = folder, _read_index(folder / INDEX)
        try:
            self._facts = _checked_facts(data["model"])
            self.name, self.machine = self._facts["model"], dict(data["machine"])
            self.spec = ModelSpec.from_dict(data["spec"], str(folder / INDEX))
            self.images = {_checked_digest(i["sha256"]): _checked_size(i["size"], self.spec) for i in data["images"]}
            self.names = {i["sha256"]: str(i["name"]) for i in data["images"]}
        except (KeyError, TypeError, ValueError, AttributeError, OverflowError) as error:
            raise InputError(f"{folder / INDEX}: damaged ({type(error).__name__}: {error}): save again") from None
        except UnetEdgeError as error:
            raise InputError(f"{folder / INDEX}: damaged ({error}): save again") from None

    @property
    def samples(self) -> list[Sample]:
        """The images whose outputs are here, without their files."""
        return [Sample(name, known_sha256=sha256) for sha256, name in self.names.items()]

    def output(self, sample: Sample) -> Output:
        """Load the output of the image with the sample's sha256."""
        size = self.images.get(sample.sha256)
        if size is None:
            known = sample.name in self.names.values()
            why = "was made from another file of this name (its sha256 differs)" if known else "is not there"
            raise InputError(f"{self.folder}: the output of {sample.name} {why}: save it again from the same image")
        return Output(read_output(self.folder / f"{sample.sha256}.npz", self.spec, size), size)

    def facts(self) -> dict[str, Any]:
        """What ran there, and where."""
        return {**self._facts, "input_size": self.spec.input_size, "saved": True, "machine": self.machine}


def common_samples(
    folders: Sequence[SavedOutputs], samples: Sequence[Sample] | None = None
) -> tuple[list[Sample], list[str]]:
    """The images that every folder has an output of, and a line for each folder that lacks some.

    Args:
        folders: saved outputs, at least one.
        samples: the images in question; by default those of the first folder, without their files.

    Raises:
        InputError: none, or an image of one name whose content differs.
    """
    kept, lacking = list(folders[0].samples if samples is None else samples), []
    for folder in folders:
        before = kept
        kept = [sample for sample in before if sample.sha256 in folder.images]
        absent = [sample.name for sample in before if sample.sha256 not in folder.images]
        changed = [name for name in absent if name in folder.names.values()]
        if changed:
            raise InputError(
                f"{folder.folder}: its {changed[0]} is another image of this name (the sha256 differs): "
                "save the outputs of the same files"
            )
        if absent:
            lacking.append(f"{len(absent)} of {len(before)} images have no output in {folder.folder}")
    if not kept:
        raise InputError(f"{folders[-1].folder}: holds no output of these images: save outputs of the same files")
    return kept, lacking


def read_output(path: Path, spec: ModelSpec, size: tuple[int, int]) -> NDArray[np.float32]:
    """One saved output, checked against the shape that its spec and image call for before anything is allocated.

    Raises:
        InputError: missing, damaged, or of another shape.
    """
    height, width = scaled_size(size, spec.scale)
    expected = (1 if spec.head == "classmap" else spec.outputs, height, width)
    try:
        with zipfile.ZipFile(path) as archive:
            with archive.open(MEMBER) as stream:
                version = np.lib.format.read_magic(stream)
                if version != (1, 0):
                    raise ValueError(f"array format {version}")
                shape, _, dtype = np.lib.format.read_array_header_1_0(stream)
                if shape != expected or dtype != np.dtype("<f4"):
                    raise ValueError(f"{dtype} of shape {shape}, expected float32 of shape {expected}")
            with archive.open(MEMBER) as stream:
                values: NDArray[np.float32] = np.lib.format.read_array(stream, allow_pickle=False)
        return values
    except FileNotFoundError:
        raise InputError(f"{path}: is missing: save the outputs again") from None
    # zipfile, zlib and numpy's parser of headers fail in many ways on damaged files.
    except Exception as error:
        raise InputError(f"{path}: damaged ({str(error).partition(chr(10))[0]}): save the outputs again") from None


def _read_index(path: Path) -> dict[str, Any]:
    try:
        if path.stat().st_size > MAX_INDEX:
            raise InputError(f"{path}: too large to be an index of outputs")
        data = json.loads(path.read_text(encoding="utf-8"))
    except OSError:
        inside = [found.parent for found in sorted(path.parent.glob(f"*/{INDEX}"))]
        hint = f": give one of those in it, such as {inside[0]}" if inside else ""
        raise InputError(f"{path.parent} is neither a model nor a folder made by --save-outputs{hint}") from None
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path}: damaged ({error}): save the outputs again") from None
    if not isinstance(data, dict) or data.get("schema") != SCHEMA:
        raise InputError(f"{path}: not of the schema {SCHEMA}: save the outputs with this version of unet-edge")
    return data


def _checked_facts(facts: dict[str, Any]) -> dict[str, Any]:
    texts = {key: str(facts[key]) for key in ("model", "backend", "precision", "head", "proves")}
    units = None if facts.get("compute_units") is None else str(facts["compute_units"])
    return {**texts, "compute_units": units, "sha256": _checked_digest(facts["sha256"]), "bytes": int(facts["bytes"])}


def _checked_digest(value: Any) -> str:
    # It becomes part of a file's name.
    if not isinstance(value, str) or not re.fullmatch(r"[0-9a-f]{64}", value):
        raise ValueError(f"{value!r} is no sha256")
    return value


def _checked_size(value: Any, spec: ModelSpec) -> tuple[int, int]:
    height, width = value
    if not all(isinstance(side, int) and side >= 1 for side in (height, width)) or height * width > MAX_PIXELS:
        raise ValueError(f"{value!r} is no size of an image")
    scaled = scaled_size((height, width), spec.scale)
    if math.prod(scaled) > MAX_PIXELS or 4 * math.prod(scaled) * spec.outputs > MAX_OUTPUT:
        raise ValueError(f"an output for an image of {value!r} would be too large")
    return height, width
