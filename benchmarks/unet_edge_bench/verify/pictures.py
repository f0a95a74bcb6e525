"""Pictures for the page: labels, where outputs differ and by how much, where labels flipped."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unet_edge.html import Picture, PictureRow, picture_uri
from unet_edge_runtime.image import to_uint8
from unet_edge_runtime.mask import overlay

from .flips import reference_margins
from .measurement import comparable_values
from .report import PairReport
from .sides import Output, Sample, Side

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FLIP_COLORS", "heat_colors", "worst_rows"]

SHOWN = 4  # images of a pair
SIDE = 560  # pixels of the longer side, at most
FLIP_COLORS = {"sure": (255, 92, 92), "undecided": (110, 190, 255)}
HUE = 75.0  # degrees in OKLCh: amber
GROUND = 0.35  # brightness of the image that flips are marked on
WIDEN = 1  # pixels on each side of a mark, so that a single one is seen


_TO_CONES = np.array(
    [
        [1, 0.3963377774, 0.2158037573],
        [1, -0.1055613458, -0.0638541728],
        [1, -0.0894841775, -1.2914855480],
    ]
)
_TO_RGB = np.array(
    [
        [4.0767416621, -3.3077115913, 0.2309699292],
        [-1.2684380046, 2.6097574011, -0.3413193965],
        [-0.0041960863, -0.7034186147, 1.7076147010],
    ]
)


def worst_rows(report: PairReport) -> tuple[list[PictureRow], float]:
    """The worst images of a pair in pictures, and what the brightest colour of their heat maps stands for."""
    samples = [image.sample for image in report.images[:SHOWN]]
    top = max((image.measured["max_difference"] or 0.0 for image in report.images[:SHOWN]), default=0.0)
    return [_row(report, sample, top) for sample in samples], top


def _row(report: PairReport, sample: Sample, top: float) -> PictureRow:
    reference, candidate = report.reference, report.candidate
    ours, theirs = reference.output(sample), candidate.output(sample)
    with np.errstate(all="ignore"):
        first, second = reference.labels(ours), candidate.labels(theirs)
    image = None if sample.image is None else _small(to_uint8(sample.pixels()))
    pictures = [] if image is None else [Picture("image", picture_uri(Image.fromarray(image), "JPEG"))]
    pictures += [
        Picture(reference.name, _labels(first, reference)),
        Picture(candidate.name, _labels(second, candidate)),
    ]
    if report.kind != "labels":
        pictures.append(_heat(report, ours, theirs, top))
    pictures.append(_flips(reference, ours, first, second, image))
    return PictureRow(sample.name, pictures)


def _labels(labels: NDArray[np.uint8], side: Side) -> str:
    small = labels[tuple(slice(None, None, _step(labels.shape)) for _ in range(2))]
    black = np.zeros((*small.shape, 3), np.uint8)
    return picture_uri(overlay(black, small, side.spec, opacity=1))


def _heat(report: PairReport, ours: Output, theirs: Output, top: float) -> Picture:
    left, right = (
        comparable_values(output, side.spec, report.kind)
        for output, side in ((ours, report.reference), (theirs, report.candidate))
    )
    with np.errstate(invalid="ignore"):
        difference = _largest(np.abs(left - right).max(axis=0))
    share = np.nan_to_num(difference / top if top else difference * 0, nan=1.0, posinf=1.0)
    colors = heat_colors(256)[(share.clip(0, 1) * 255).round().astype(np.uint8)]
    return Picture(
        f"difference of {report.kind}", picture_uri(Image.fromarray(colors)), f"largest {difference.max():.2g}"
    )


def _flips(
    reference: Side, ours: Output, first: NDArray[np.uint8], second: NDArray[np.uint8], image: NDArray[np.uint8] | None
) -> Picture:
    flipped, sure = first != second, np.zeros(first.shape, bool)
    if reference.spec.head != "classmap" and flipped.any():
        with np.errstate(all="ignore"):
            sure[flipped] = reference_margins(ours, reference.spec, first, flipped)[1]
    marks = {"undecided": _widened(_largest(flipped & ~sure)), "sure": _widened(_largest(sure))}
    shape = marks["sure"].shape
    picture = np.zeros((*shape, 3), np.uint8)
    if image is not None:
        picture[:] = (np.asarray(Image.fromarray(image).resize((shape[1], shape[0]))) * GROUND).astype(np.uint8)
    for name, mark in marks.items():
        picture[mark] = FLIP_COLORS[name]
    return Picture("flipped labels", picture_uri(Image.fromarray(picture)), f"{int(flipped.sum()):,} pixels")


def heat_colors(count: int) -> NDArray[np.uint8]:
    """(count, 3) RGB from nearly black to nearly white in equal steps of lightness, of one hue.

    OKLCh to sRGB after Ottosson, "A perceptual color space for image processing", 2020.
    """
    light = np.linspace(0.13, 0.95, count)
    chroma = 0.16 * np.sin(np.pi * np.clip(light, 0, 1)) ** 0.8
    a, b = chroma * math.cos(math.radians(HUE)), chroma * math.sin(math.radians(HUE))
    linear = ((np.stack([light, a, b], axis=1) @ _TO_CONES.T) ** 3 @ _TO_RGB.T).clip(0, 1)
    coded = np.where(linear <= 0.0031308, 12.92 * linear, 1.055 * linear ** (1 / 2.4) - 0.055)
    return (coded * 255).round().astype(np.uint8)


def _step(shape: tuple[int, ...]) -> int:
    return math.ceil(max(shape[:2]) / SIDE)


def _small(image: NDArray[np.uint8]) -> NDArray[np.uint8]:
    step = _step(image.shape)
    size = (math.ceil(image.shape[1] / step), math.ceil(image.shape[0] / step))
    return np.asarray(Image.fromarray(image).resize(size, Image.Resampling.BOX))


def _largest(plane: NDArray[Any]) -> NDArray[Any]:
    """The plane made smaller, each pixel the largest of those it stands for: not one that differs gets lost."""
    step = _step(plane.shape)
    padded = np.pad(plane, [(0, -side % step) for side in plane.shape], mode="edge")
    return padded.reshape(padded.shape[0] // step, step, padded.shape[1] // step, step).max(axis=(1, 3))


def _widened(mark: NDArray[np.bool_]) -> NDArray[np.bool_]:
    wide = mark
    for _ in range(WIDEN):
        padded = np.pad(wide, 1)
        wide = padded[1:-1, 1:-1] | padded[:-2, 1:-1] | padded[2:, 1:-1] | padded[1:-1, :-2] | padded[1:-1, 2:]
    return wide
