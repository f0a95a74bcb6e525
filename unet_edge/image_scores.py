"""Scores image by image, beside those of all pixels together, and both as CSV."""

from __future__ import annotations

import csv
import math
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.files import atomic_path
from unet_edge_runtime.scores import ConfusionMatrix

if TYPE_CHECKING:
    from unet_edge_runtime.spec import ModelSpec

    from .data.pairing import Pair

__all__ = ["ImageScores"]


class ImageScores:
    """Confusion matrices of single images; `add` is what `evaluate` takes as `on_image`.

    Args:
        spec: of the model that is scored.
        include_background: count the background class in the means.
    """

    def __init__(self, spec: ModelSpec, include_background: bool = False) -> None:
        self.spec, self.include_background = spec, include_background
        self.matrices: dict[str, ConfusionMatrix] = {}

    def add(self, pair: Pair, matrix: ConfusionMatrix) -> None:
        """Count the image of `pair`."""
        self.matrices[pair.name] = matrix

    @property
    def total(self) -> ConfusionMatrix:
        """All pixels of all images in one matrix."""
        total = ConfusionMatrix(len(self.spec.classes))
        for matrix in self.matrices.values():
            total.counts += matrix.counts
        return total

    def of_image(self, name: str) -> dict[str, Any]:
        """`ConfusionMatrix.summary` of one image: its means are over the classes that it holds or was given."""
        return self.matrices[name].summary(self.spec, self.include_background)

    def summary(self) -> dict[str, Any]:
        """Scores over all pixels as `ConfusionMatrix.summary`, with `images` and `mean_over_images`.

        `mean_over_images` holds `dice` and `iou`, the means of the images' own means, over the `scored` images
        that have one: an image of background alone, and seen as such, has none.
        """
        each = [self.of_image(name) for name in self.matrices]
        means = {key: _mean(scores[key] for scores in each) for key in ("dice", "iou")}
        scored = sum(scores["dice"] is not None for scores in each)
        return {
            **self.total.summary(self.spec, self.include_background),
            "images": len(each),
            "mean_over_images": {**means, "scored": scored},
        }

    def worst(self, count: int) -> list[tuple[str, float]]:
        """Name and mean Dice of the images with the lowest ones, the lowest first."""
        scored = [(name, self.of_image(name)["dice"]) for name in self.matrices]
        return sorted(((n, d) for n, d in scored if d is not None), key=lambda item: (item[1], item[0]))[:count]

    def write_images(self, path: Path) -> None:
        """Write a CSV file (RFC 4180), one row an image, sorted by name; a score that does not exist is empty.

        Raises:
            InputError: it cannot be written.
        """
        per_class = ["dice", "iou", "pixels", "predicted pixels"]
        columns = [f"{column} {name}" for name in self.spec.class_names for column in per_class]
        rows = [self._image_row(name) for name in sorted(self.matrices)]
        _write_csv(path, ["image", "pixels", "pixel_accuracy", "dice", "iou", *columns], rows)

    def write_classes(self, path: Path) -> None:
        """Write a CSV file (RFC 4180), one row a class, over all pixels of all images.

        Raises:
            InputError: it cannot be written.
        """
        cells = _class_cells(self.total)
        rows = [[name, *row] for name, row in zip(self.spec.class_names, cells, strict=True)]
        _write_csv(path, ["class", "dice", "iou", "pixels", "predicted_pixels"], rows)

    def _image_row(self, name: str) -> list[Any]:
        matrix, scores = self.matrices[name], self.of_image(name)
        cells = [cell for row in _class_cells(matrix) for cell in row]
        return [name, matrix.pixels, scores["pixel_accuracy"], scores["dice"], scores["iou"], *cells]


def _class_cells(matrix: ConfusionMatrix) -> list[list[Any]]:
    """Of each class Dice, IoU, its pixels in the truth and in the prediction."""
    columns = (matrix.dice, matrix.iou, matrix.true_pixels, matrix.predicted_pixels)
    return [list(row) for row in zip(*columns, strict=True)]


def _write_csv(path: Path, header: Sequence[str], rows: Iterable[Sequence[Any]]) -> None:
    # The csv module ends lines with CR LF, as the RFC wants it, and writes None as an empty cell.
    with atomic_path(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as stream:
        csv.writer(stream).writerows([header, *rows])


def _mean(values: Iterable[float | None]) -> float | None:
    present = [value for value in values if value is not None]
    # The exact sum, since batches and processes tell the images in other orders.
    return math.fsum(present) / len(present) if present else None
