"""The Lovász extension of the Jaccard loss: IoU itself, made differentiable.

Source: Berman, Rannen Triki and Blaschko, "The Lovász-Softmax loss" (CVPR 2018).
"""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

from .batch import Batch

__all__ = ["lovasz_sums"]


def lovasz_sums(batch: Batch) -> Tensor:
    """(2,): the sum over the images, and the number of images with a pixel that counts.

    An image's loss is the mean over its classes of the Lovász-softmax; for one sigmoid output it is the Lovász
    hinge of the foreground, where there is one and where there is none.
    """
    valid = batch.valid.flatten(1)
    images = valid.any(dim=1)
    targets = batch.targets.flatten(2)
    truth = targets.to(batch.logits.dtype)
    if batch.is_sigmoid:
        errors, chosen = (1 - batch.logits.flatten(2) * (2 * truth - 1)).relu(), images[:, None]
    else:
        errors, chosen = (truth - batch.probabilities.flatten(2)).abs(), targets.any(dim=2)
    # An error of 0 adds nothing wherever it is sorted, so that an ignored pixel changes neither value nor gradient.
    errors = errors * valid[:, None]
    share = 1 / chosen.sum(1).clamp(min=1)
    image, of = chosen.nonzero(as_tuple=True)  # once: a GPU waits at every choice by truth values
    total = (_extension(errors[image, of], targets[image, of]) * share[image]).sum()
    return torch.stack([total, images.sum().to(total.dtype)])


def _extension(errors: Tensor, targets: Tensor) -> Tensor:
    """(M,) the Lovász extension of 1 - IoU at `errors` (M, P) >= 0, for M sets `targets` (M, P) bool."""
    order = _descending(errors.detach())
    return (errors.gather(1, order) * _steps(targets.gather(1, order), errors.dtype)).sum(1)


def _steps(targets: Tensor, dtype: torch.dtype) -> Tensor:
    """(M, P): by how much 1 - IoU grows when the next pixel is wrong too; equation 8 of the paper.

    Written as a quotient, not as the difference of two neighbouring values, of which fp32 would keep two digits.
    """
    hits = targets.cumsum(1, dtype=torch.int32)
    total = hits[:, -1:]
    places = torch.arange(1, targets.shape[1] + 1, dtype=torch.int32, device=targets.device)
    intersection = (total - hits).to(dtype)
    union = (total + places - hits).to(dtype)
    missed = 1 / union
    false = intersection / (union * (union - 1).clamp(min=1))
    # Of an empty set the first false pixel alone makes IoU 0.
    false[:, :1] = torch.where(total == 0, 1.0, false[:, :1])
    return torch.where(targets, missed, false)


def _descending(errors: Tensor) -> Tensor:
    """Indices that sort each row, largest first."""
    if errors.device.type == "cpu":
        # Six times faster than torch's sort: with AVX-512 0.04 against 0.25 s for 11 classes of 320x480 pixels.
        return torch.from_numpy(np.argsort(-errors.numpy(), axis=1))
    return errors.argsort(dim=1, descending=True)
