"""Mistakes that people make with a network's input, each as something to try."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from unet_edge_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["HYPOTHESES", "IMAGENET_MEAN", "IMAGENET_STD", "Hypothesis"]

IMAGENET_MEAN = (0.485, 0.456, 0.406)
IMAGENET_STD = (0.229, 0.224, 0.225)
"""Of ImageNet's training images in RGB and [0, 1], as torchvision's models take them."""

Change = Callable[["NDArray[np.float32]", ModelSpec], "NDArray[np.float32] | None"]


@dataclass(frozen=True)
class Hypothesis:
    """Something that may be wrong with what the candidate is given.

    Attributes:
        text: the mistake.
        when: what undoes it.
        change: (C, h, w) and the candidate's spec -> what it would have to be given; None where that has no meaning.
    """

    text: str
    when: str
    change: Change


def _reversed(x: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32] | None:
    if len(x) < 3:
        return None
    return np.ascontiguousarray(np.concatenate([x[2::-1], x[3:]]))


def _undone(x: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32] | None:
    return (x * _std(spec.std) + _mean(spec.mean)).astype(np.float32) if spec.mean or spec.std else None


def _imagenet(x: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32] | None:
    return ((x - _mean(IMAGENET_MEAN)) / _std(IMAGENET_STD)).astype(np.float32) if len(x) == 3 else None


def _imagenet_undone(x: NDArray[np.float32], spec: ModelSpec) -> NDArray[np.float32] | None:
    return (x * _std(IMAGENET_STD) + _mean(IMAGENET_MEAN)).astype(np.float32) if len(x) == 3 else None


def _mean(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(values or (0.0,), np.float32)[:, None, None]


def _std(values: tuple[float, ...]) -> NDArray[np.float32]:
    return np.asarray(values or (1.0,), np.float32)[:, None, None]


def _affine(factor: float, offset: float) -> Change:
    return lambda x, _: (x * factor + offset).astype(np.float32)


HYPOTHESES = (
    Hypothesis("it takes BGR, not RGB", "the colour channels are reversed", _reversed),
    Hypothesis("it takes values of 0 to 255", "its input is multiplied by 255", _affine(255, 0)),
    Hypothesis("it scales its input twice", "its input is divided by 255", _affine(1 / 255, 0)),
    Hypothesis("it takes values of -1 to 1", "its input x becomes 2x - 1", _affine(2, -1)),
    Hypothesis("it maps -1..1 to 0..1 by itself", "its input x becomes (x + 1) / 2", _affine(0.5, 0.5)),
    Hypothesis("it takes images without normalisation", "its own mean and std are left out", _undone),
    Hypothesis("it takes images normalised with ImageNet's mean and std", "they are applied", _imagenet),
    Hypothesis("it normalises with ImageNet's mean and std by itself", "they are undone", _imagenet_undone),
    Hypothesis("it takes inverted images", "its input x becomes 1 - x", _affine(-1, 1)),
)
"""In the order of how common they are; where several explain a difference, the best does."""
