"""Optimisers by name."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch

if TYPE_CHECKING:
    from torch import nn

    from .config import TrainConfig

__all__ = ["make_optimizer"]


def make_optimizer(model: nn.Module, config: TrainConfig) -> torch.optim.Optimizer:
    """RMSprop, AdamW, or SGD with Nesterov's momentum.

    RMSprop decays every parameter, as milesial's does. AdamW and SGD leave biases and batch norm's scales alone:
    pulling those towards zero regularises nothing (He et al., 2018, arXiv:1812.01187, section 3.1).

    Args:
        model: its parameters are trained.
        config: optimizer, learning_rate, weight_decay and momentum are used.
    """
    rate, decay, momentum = config.learning_rate, config.weight_decay, config.momentum
    if config.optimizer == "rmsprop":
        return torch.optim.RMSprop(
            model.parameters(), lr=rate, weight_decay=decay, momentum=momentum, foreach=True
        )  # fmt: skip
    groups = _groups(model, decay)
    if config.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=rate, betas=(momentum, 0.999), foreach=True)
    return torch.optim.SGD(groups, lr=rate, momentum=momentum, nesterov=momentum > 0, foreach=True)


def _groups(model: nn.Module, decay: float) -> list[dict[str, Any]]:
    parameters = list(model.parameters())
    return [
        {"params": [p for p in parameters if p.ndim > 1], "weight_decay": decay},
        {"params": [p for p in parameters if p.ndim <= 1], "weight_decay": 0.0},
    ]
