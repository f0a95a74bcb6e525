"""A running average of the weights."""

from __future__ import annotations

import copy
from typing import TYPE_CHECKING

import torch

if TYPE_CHECKING:
    from unet_edge.model import UNet

__all__ = ["Ema"]


class Ema:
    """The exponential moving average of a network: weights and batch norm's statistics, in fp32.

    At the beginning the average forgets faster, by min(decay, (1 + n) / (10 + n)) at update n, so that it does not
    hold on to the first random weights (the rule of TensorFlow's ExponentialMovingAverage with num_updates).

    Args:
        model: the network to follow, which keeps its tensors; the average starts as a copy of it, on its device and in
            its memory layout.
        decay: how much of the average stays at an update, below 1.
    """

    def __init__(self, model: UNet, decay: float) -> None:
        self.decay = decay
        self.model = copy.deepcopy(model).float().eval().requires_grad_(False)
        pairs = list(zip(self.model.state_dict().values(), model.state_dict().values(), strict=True))
        self._averaged = [pair for pair in pairs if pair[0].is_floating_point()]
        self._counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # batch norm's, of batches

    @torch.no_grad()
    def update(self, step: int) -> None:
        """Move towards the network as it is after `step` steps."""
        keep = min(self.decay, (1 + step) / (10 + step))
        averages, values = zip(*self._averaged, strict=True)
        torch._foreach_lerp_(averages, [value.float() for value in values], 1 - keep)
        for average, value in self._counts:
            average.copy_(value)
