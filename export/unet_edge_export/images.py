"""On which images an artefact is compared with PyTorch."""

from __future__ import annotations

import importlib.util
import json
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from unet_edge_runtime.image import read_image
from unet_edge_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["LIMIT", "CheckImages", "choose_images", "load", "spread"]

LIMIT = 8


@dataclass(frozen=True)
class CheckImages:
    """Images to compare on.

    Attributes:
        images: files, or arrays as `read_image` returns.
        origin: where they come from, for people.
    """

    images: list[Path | NDArray[np.generic]]
    origin: str


def choose_images(checkpoint: Path, spec: ModelSpec, given: list[Path] | None = None) -> CheckImages:
    """The images given; else validation images of the checkpoint's run; else a real photograph; else made-up ones.

    For a graph of dynamic size, a part of the first image is added, so that two sizes are run.

    Raises:
        InputError: the first image cannot be read.
    """
    chosen = _chosen(checkpoint, spec, given)
    if spec.input_size is not None:
        return chosen
    first = load(chosen.images[0], spec)
    part = first[: max(1, first.shape[0] * 3 // 4), : max(1, first.shape[1] * 2 // 3)]
    return CheckImages([*chosen.images, part], f"{chosen.origin}, and a part of the first as another size")


def load(image: Path | NDArray[np.generic], spec: ModelSpec) -> NDArray[np.generic]:
    """Read an image; what a class-map graph of fixed size cannot take whole is cut to its top left part."""
    pixels = read_image(image) if isinstance(image, Path) else image
    if spec.head != "classmap" or spec.input_size is None:
        return pixels
    height, width = (max(1, int(side / spec.scale)) for side in spec.input_size)
    return pixels[:height, :width]


def spread(paths: list[Path], limit: int = LIMIT) -> list[Path]:
    """At most `limit` of the paths, evenly spread."""
    if len(paths) <= limit:
        return paths
    return [paths[i * len(paths) // limit] for i in range(limit)]


def _chosen(checkpoint: Path, spec: ModelSpec, given: list[Path] | None) -> CheckImages:
    if given:
        return CheckImages(list(given), f"{_count(len(given), 'given image')}")
    validation = spread(_validation_images(checkpoint.parent / "split.json"))
    if validation:
        return CheckImages(list(validation), _count(len(validation), "validation image") + " of the run")
    photograph = _photograph()
    if photograph is not None:
        return CheckImages([photograph], "1 photograph that ships with matplotlib (no image of the run is in reach)")
    made = _made_up(spec)
    return CheckImages(list(made), f"{len(made)} made-up images (no image of the run is in reach)")


def _validation_images(split: Path) -> list[Path]:
    """Validation images that a run folder names and that are still there."""
    try:
        entries = json.loads(split.read_text(encoding="utf-8"))["val"]
        paths = [Path(entry["image"]) for entry in entries]
        return [path for path in paths if path.is_file()]
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return []


def _photograph() -> Path | None:
    """Grace Hopper's portrait, 512x600, public domain; the package is located, not imported."""
    package = importlib.util.find_spec("matplotlib")
    for folder in (package.submodule_search_locations or []) if package else []:
        path = Path(folder) / "mpl-data" / "sample_data" / "grace_hopper.jpg"
        if path.is_file():
            return path
    return None


def _made_up(spec: ModelSpec, count: int = 3) -> list[NDArray[np.generic]]:
    """Smooth blobs with a little noise, the same in every run: (H, W, 3) uint8."""
    height, width = spec.input_size or (8 * spec.multiple, 12 * spec.multiple)
    size = (max(8, round(width / spec.scale)), max(8, round(height / spec.scale)))
    generator = np.random.default_rng(0)
    images: list[NDArray[np.generic]] = []
    for _ in range(count):
        blobs = Image.fromarray(generator.integers(0, 256, (6, 8, 3), np.uint8)).resize(size, Image.Resampling.BICUBIC)
        noise = generator.integers(-8, 9, (size[1], size[0], 3))
        images.append((np.asarray(blobs).astype(np.int64) + noise).clip(0, 255).astype(np.uint8))
    return images


def _count(number: int, what: str) -> str:
    return f"{number} {what}{'' if number == 1 else 's'}"
