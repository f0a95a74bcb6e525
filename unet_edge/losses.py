"""Cross-entropy (or its two-class form) plus Dice loss."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional as F

from unet_edge_runtime.spec import IGNORE_LABEL

__all__ = ["dice_loss", "segmentation_loss"]

EPSILON = 1e-6  # pixels; the seed's


def segmentation_loss(logits: Tensor, labels: Tensor, pooled_dice: bool = False) -> Tensor:
    """Cross-entropy plus Dice loss, both without the ignored pixels, in fp32 whatever the logits' type.

    Args:
        logits: (N, K, H, W); K = 1 means one sigmoid output, trained with binary cross-entropy.
        labels: (N, H, W) uint8 or int64, with `IGNORE_LABEL` where nothing is to be learnt.
        pooled_dice: see `dice_loss`.

    Returns:
        A scalar; 0 for a batch of ignored pixels alone.
    """
    logits = logits.float()
    labels = labels.long()
    valid = labels != IGNORE_LABEL
    if logits.shape[1] == 1:
        target = ((labels == 1) & valid).float()
        entropy = F.binary_cross_entropy_with_logits(logits[:, 0], target, reduction="none")
        probabilities, targets = torch.sigmoid(logits), target[:, None]
    else:
        entropy = F.cross_entropy(logits, labels, ignore_index=IGNORE_LABEL, reduction="none")
        probabilities = torch.softmax(logits, dim=1)
        targets = F.one_hot(torch.where(valid, labels, 0), logits.shape[1]).movedim(3, 1).to(logits.dtype)
    mask = valid[:, None].to(logits.dtype)
    mean_entropy = (entropy * mask[:, 0]).sum() / mask.sum().clamp(min=1)
    return mean_entropy + dice_loss(probabilities * mask, targets * mask, pooled_dice)


def dice_loss(probabilities: Tensor, targets: Tensor, pooled: bool = False) -> Tensor:
    """One minus the soft Dice coefficient over a batch.

    Args:
        probabilities: (N, K, H, W), 0 at ignored pixels.
        targets: (N, K, H, W) one-hot, 0 at ignored pixels.
        pooled: one coefficient over all classes together, as the seed computes it, in which a rare class hardly
            counts; by default the mean over the classes that occur in the batch.

    Returns:
        A scalar in [0, 1].
    """
    dims = (0, 1, 2, 3) if pooled else (0, 2, 3)
    overlap = 2 * (probabilities * targets).sum(dims)
    total = probabilities.sum(dims) + targets.sum(dims)
    score = (overlap + EPSILON) / (total + EPSILON)
    if pooled:
        return 1 - score
    present = targets.sum(dims) > 0
    return ((1 - score) * present).sum() / present.sum().clamp(min=1)
