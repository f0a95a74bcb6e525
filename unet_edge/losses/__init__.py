"""What training makes small: terms named in a text, such as "ce+dice" or "focal+0.5*lovasz".

Importing this package does not import torch: a configuration can be checked without it.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from unet_edge_runtime.errors import InputError

from .names import TERMS, WEIGHTED, check_loss, parse_loss
from .weights import balanced_weights

if TYPE_CHECKING:
    from torch import Tensor

__all__ = ["TERMS", "balanced_weights", "check_loss", "make_loss"]


def make_loss(
    text: str,
    class_weights: Sequence[float] | None = None,
    reduce: Callable[[Tensor], Tensor] | None = None,
) -> Callable[[Tensor, Tensor], Tensor]:
    """The function (logits (N, K, H, W), labels (N, H, W)) -> scalar that `text` describes.

    K = 1 is one sigmoid output, whose foreground has label 1. Pixels labelled `IGNORE_LABEL` do not count, an
    empty or wholly ignored batch has the loss 0. Computed in fp32 whatever the logits' type.

    Args:
        text: what `check_loss` accepts.
        class_weights: one number a class (two for K = 1), for ce and focal: a pixel counts by the weight of its
            true class, and the sum is divided by all weights. The region terms (dice, tversky, lovasz) are means
            over classes already, where a rare class counts as much as a frequent one: weights leave them alone.
        reduce: adds up a vector over all processes, differentiably: the loss is then that of all batches
            together, and the mean of the processes' gradients is its gradient.

    Raises:
        InputError: `text` names no loss, or the weights cannot be used.
    """
    from .combined import CombinedLoss

    terms = parse_loss(text)
    if class_weights is not None:
        _check_weights(class_weights, text, [name for name, _ in terms])
    return CombinedLoss(terms, class_weights, reduce or (lambda sums: sums))


def _check_weights(weights: Sequence[float], text: str, names: list[str]) -> None:
    if not all(0 <= weight < float("inf") for weight in weights) or not any(weights):
        raise InputError(f"class weights must be numbers from 0 up, not all 0, not {', '.join(map(str, weights))}")
    if not WEIGHTED & set(names):
        raise InputError(f"class weights change only {' and '.join(sorted(WEIGHTED))}; the loss {text!r} has neither")
