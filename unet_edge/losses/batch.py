"""Logits and labels of a batch, and what several terms compute from them."""

from __future__ import annotations

from functools import cached_property

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_edge_runtime.spec import IGNORE_LABEL

__all__ = ["Batch"]


class Batch:
    """A batch as the terms see it; each tensor is computed once, when a term first asks for it.

    Args:
        logits: (N, K, H, W); K = 1 is one sigmoid output.
        labels: (N, H, W) uint8 or int64.
        class_weights: (max(2, K),), or None.
    """

    def __init__(self, logits: Tensor, labels: Tensor, class_weights: Tensor | None) -> None:
        # Half precision has neither the range nor the digits for sums over pixels.
        self.logits = logits if logits.dtype == torch.float64 else logits.float()
        self.labels = labels.long()
        self.class_weights = class_weights
        self.is_sigmoid = logits.shape[1] == 1
        self.valid = self.labels != IGNORE_LABEL

    @cached_property
    def targets(self) -> Tensor:
        """(N, K, H, W) bool: whether a pixel is of the class; nowhere at ignored pixels."""
        if self.is_sigmoid:
            return (self.labels == 1)[:, None]
        classes = torch.arange(self.logits.shape[1], device=self.labels.device)
        return self.labels[:, None] == classes[:, None, None]

    @cached_property
    def probabilities(self) -> Tensor:
        """(N, K, H, W) in [0, 1]."""
        return torch.sigmoid(self.logits) if self.is_sigmoid else torch.softmax(self.logits, dim=1)

    @cached_property
    def entropy(self) -> Tensor:
        """(N, H, W) minus the logarithm of the true class's probability; anything at ignored pixels."""
        if self.is_sigmoid:
            target = self.targets[:, 0].to(self.logits.dtype)
            return F.binary_cross_entropy_with_logits(self.logits[:, 0], target, reduction="none")
        return F.cross_entropy(self.logits, self.labels, ignore_index=IGNORE_LABEL, reduction="none")

    @cached_property
    def pixel_weights(self) -> Tensor:
        """(N, H, W) the weight of a pixel's class, 1 without class weights; 0 at ignored pixels."""
        if self.class_weights is None:
            return self.valid.to(self.logits.dtype)
        weights = self.class_weights.to(self.logits.dtype)[self.labels.where(self.valid, 0)]
        return weights * self.valid

    @cached_property
    def region_sums(self) -> Tensor:
        """(3K,): for each class its overlap of probability and truth, then its probability, then its truth."""
        probabilities = self.probabilities * self.valid[:, None]
        overlap = (probabilities * self.targets).sum((0, 2, 3))
        return torch.cat([overlap, probabilities.sum((0, 2, 3)), self.targets.sum((0, 2, 3)).to(overlap.dtype)])
