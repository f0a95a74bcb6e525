"""The terms: each a vector of sums over a batch's pixels, and the loss as a function of that vector.

Sums of several batches add up, so the loss of many processes is that of their batches together.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from .batch import Batch
from .lovasz import lovasz_sums

__all__ = ["TERM_FUNCTIONS"]

EPSILON = 1e-6  # pixels; the seed's
TINY = 1e-12  # divides a sum that is 0
GAMMA = 2.0  # Lin's choice for focal
FALSE_POSITIVES = 0.3  # Salehi's alpha: the price of a false pixel
FALSE_NEGATIVES = 0.7  # Salehi's beta: the price of a missed one


def cross_entropy_sums(batch: Batch) -> Tensor:
    """(2,): the weighted sum of the cross-entropy, and the sum of the weights."""
    return _pair((batch.entropy * batch.pixel_weights).sum(), batch.pixel_weights.sum())


def focal_sums(batch: Batch) -> Tensor:
    """(2,): the weighted sum of (1 - p)^2 times the cross-entropy, p being the true class's probability; the weights.

    Source: Lin et al., "Focal Loss for Dense Object Detection" (ICCV 2017), gamma = 2, without its alpha, which
    class weights are here.
    """
    missing = -(-batch.entropy).expm1()  # 1 - p, exact where p is nearly 1
    return _pair((missing**GAMMA * batch.entropy * batch.pixel_weights).sum(), batch.pixel_weights.sum())


def mean(sums: Tensor) -> Tensor:
    """The first sum divided by the second; 0 where both are 0."""
    return sums[0] / sums[1].clamp(min=TINY)


def region_sums(batch: Batch) -> Tensor:
    """(3K,), see `Batch.region_sums`."""
    return batch.region_sums


def dice(sums: Tensor) -> Tensor:
    """One minus the soft Dice coefficient, mean over the classes that occur in the truth.

    Source: Milletari et al., "V-Net" (3DV 2016), here without squares in the denominator, for each class.
    """
    overlap, predicted, truth = sums.view(3, -1)
    return _mean_of_present(1 - (2 * overlap + EPSILON) / (predicted + truth + EPSILON), truth)


def pooled_dice(sums: Tensor) -> Tensor:
    """One coefficient over all classes together, in which a rare class hardly counts: milesial/Pytorch-UNet's."""
    overlap, predicted, truth = sums.view(3, -1).sum(1)
    return 1 - (2 * overlap + EPSILON) / (predicted + truth + EPSILON)


def tversky(sums: Tensor) -> Tensor:
    """One minus the Tversky index, mean over the classes that occur: false pixels weigh 0.3, missed ones 0.7.

    Source: Salehi et al., "Tversky loss function for image segmentation using 3D fully convolutional deep
    networks" (MLMI 2017).
    """
    overlap, predicted, truth = sums.view(3, -1)
    wrong = FALSE_POSITIVES * (predicted - overlap) + FALSE_NEGATIVES * (truth - overlap)
    return _mean_of_present(1 - (overlap + EPSILON) / (overlap + wrong + EPSILON), truth)


TERM_FUNCTIONS: dict[str, tuple[Callable[[Batch], Tensor], Callable[[Tensor], Tensor]]] = {
    "ce": (cross_entropy_sums, mean),
    "focal": (focal_sums, mean),
    "dice": (region_sums, dice),
    "pooled_dice": (region_sums, pooled_dice),
    "tversky": (region_sums, tversky),
    "lovasz": (lovasz_sums, mean),
}
"""Of each term the sums over a batch, and the loss from the sums."""


def _pair(first: Tensor, second: Tensor) -> Tensor:
    return torch.stack([first, second])


def _mean_of_present(losses: Tensor, truth: Tensor) -> Tensor:
    present = truth > 0
    return (losses * present).sum() / present.sum().clamp(min=1)
