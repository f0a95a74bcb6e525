"""What is recorded: scalars, histograms, example pictures."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from unet_edge_runtime.mask import overlay, side_by_side

if TYPE_CHECKING:
    import torch
    from numpy.typing import NDArray

    from unet_edge_runtime.spec import ModelSpec

__all__ = ["Example", "Histogram", "histograms_of", "score_scalars"]

BINS = 64
SAMPLE = 1 << 16  # values of a tensor that are looked at: counting all of a large network's takes seconds
LONGEST = 512  # pixels: a photograph at full size would make every validation cost megabytes


@dataclass(frozen=True)
class Example:
    """One image with its true and its predicted mask.

    Attributes:
        name: of the image; the same at every step, so that the pictures form a series.
        image: (H, W, 3) uint8 RGB.
        truth: (H, W, 3) uint8 RGB, the true mask in the classes' colours.
        predicted: (H, W, 3) uint8 RGB, the predicted one.
    """

    name: str
    image: NDArray[np.uint8]
    truth: NDArray[np.uint8]
    predicted: NDArray[np.uint8]

    @classmethod
    def from_labels(
        cls,
        name: str,
        image: NDArray[np.generic],
        truth: NDArray[np.uint8],
        predicted: NDArray[np.uint8],
        spec: ModelSpec,
    ) -> Example:
        """Lay two label maps over an image.

        Args:
            name: of the image.
            image: (H, W[, C]) as `read_image` returns.
            truth: (H, W) true labels.
            predicted: (H, W) predicted labels.
            spec: colours and background.
        """
        pictures = (
            overlay(image, labels, spec, opacity) for labels, opacity in ((truth, 0), (truth, 0.5), (predicted, 0.5))
        )
        return cls(name, *(_shrunk(picture) for picture in pictures))

    def picture(self) -> NDArray[np.uint8]:
        """Image, truth and prediction in a row: (H, 3 W + gaps, 3) uint8, the longer side of each at most 512."""
        parts = [Image.fromarray(_shrunk(Image.fromarray(part))) for part in (self.image, self.truth, self.predicted)]
        return np.asarray(side_by_side(*parts))


@dataclass(frozen=True)
class Histogram:
    """How the values of one tensor are spread over bins of equal width.

    Attributes:
        counts: (B,) values in each bin.
        edges: (B + 1,) borders of the bins, rising.
        total: sum of all values.
        squares: sum of their squares.
    """

    counts: NDArray[np.float64]
    edges: NDArray[np.float64]
    total: float
    squares: float


def histograms_of(model: torch.nn.Module) -> dict[str, Histogram]:
    """Of every parameter (`weights/NAME`) and its gradient (`gradients/NAME`).

    Of a large tensor an evenly spaced sample counts, of at most 65,536 values. Tensors with a value that is not finite
    are left out: an overflow has no histogram.
    """
    found: dict[str, Histogram | None] = {}
    for name, parameter in model.named_parameters():
        found[f"weights/{name}"] = _histogram(parameter)
        if parameter.grad is not None:
            found[f"gradients/{name}"] = _histogram(parameter.grad)
    return {name: histogram for name, histogram in found.items() if histogram is not None}


def score_scalars(scores: dict[str, Any]) -> dict[str, float]:
    """The scores of a validation (`ConfusionMatrix.summary`) as scalars; a class that is absent has none."""
    values = {f"validation/{key}": scores.get(key) for key in ("dice", "iou", "pixel_accuracy")}
    for info in scores.get("classes", []):
        values[f"validation_dice/{info['name'].replace('/', '_')}"] = info["dice"]
    return {tag: float(value) for tag, value in values.items() if value is not None}


def _histogram(tensor: torch.Tensor) -> Histogram | None:
    if not tensor.numel() or not bool(tensor.sum().isfinite()):
        return None
    # On the CPU, because torch.histc is not deterministic on CUDA and refuses to run where that is asked for.
    values = tensor.detach().flatten()[:: _stride(tensor.numel())].float().cpu()
    low, high = float(values.min()), float(values.max())
    if low == high:
        low, high = low - 0.5, high + 0.5
    counts = values.histc(BINS, low, high).double().numpy()
    doubles = values.double()
    return Histogram(counts, np.linspace(low, high, BINS + 1), float(doubles.sum()), float(doubles.square().sum()))


def _stride(size: int) -> int:
    """How far apart a sample's values are; no multiple of 2 or 3, or it would see one corner of the kernels only."""
    stride = -(-size // SAMPLE)
    while stride > 1 and (stride % 2 == 0 or stride % 3 == 0):
        stride += 1
    return stride


def _shrunk(picture: Image.Image) -> NDArray[np.uint8]:
    picture = picture.convert("RGB")
    picture.thumbnail((LONGEST, LONGEST))
    return np.asarray(picture)
