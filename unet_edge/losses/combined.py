"""A weighted sum of terms, each a function of sums over pixels, so that several processes can add theirs up."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from unet_edge_runtime.errors import InputError

from .batch import Batch
from .terms import TERM_FUNCTIONS

__all__ = ["CombinedLoss"]


class CombinedLoss:
    """What `make_loss` returns.

    Args:
        terms: names and weights.
        class_weights: one a class, or None.
        reduce: adds up a vector over all processes.
    """

    def __init__(
        self,
        terms: Sequence[tuple[str, float]],
        class_weights: Sequence[float] | None,
        reduce: Callable[[Tensor], Tensor],
    ) -> None:
        self.terms = [(*TERM_FUNCTIONS[name], weight) for name, weight in terms]
        self.class_weights = None if class_weights is None else torch.tensor(class_weights)
        self.reduce = reduce

    def __call__(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of a batch: logits (N, K, H, W), labels (N, H, W) uint8 or int64."""
        batch = Batch(logits, labels, self._weights(logits))
        sums = [sums_of(batch) for sums_of, _, _ in self.terms]
        # One vector, so that several processes talk once.
        parts = torch.split(self.reduce(torch.cat(sums)), [len(part) for part in sums])
        values = [value(part) * weight for part, (_, value, weight) in zip(parts, self.terms, strict=True)]
        return torch.stack(values).sum()

    def _weights(self, logits: Tensor) -> Tensor | None:
        if self.class_weights is None:
            return None
        classes = max(2, logits.shape[1])
        if len(self.class_weights) != classes:
            raise InputError(f"{len(self.class_weights)} class weights do not fit {classes} classes: give one a class")
        self.class_weights = self.class_weights.to(logits.device)
        return self.class_weights
