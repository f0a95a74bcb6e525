"""The course of the learning rate."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from torch.optim import Optimizer, lr_scheduler

if TYPE_CHECKING:
    from .config import TrainConfig

__all__ = ["make_schedulers"]


def make_schedulers(optimizer: Optimizer, config: TrainConfig, steps: int) -> dict[str, Any]:
    """Warm-up and decay, stepped after every step, and the plateau, stepped after every validation.

    All of them multiply the rate that they find, so they work together.

    Args:
        optimizer: its groups' rates are governed.
        config: warmup, decay, patience and learning_rate are used.
        steps: length of the course.

    Returns:
        By name: "warmup" and "decay" where the configuration has them, and always "plateau".
    """
    made: dict[str, Any] = {}
    if config.warmup:
        made["warmup"] = lr_scheduler.LinearLR(optimizer, 0.01, total_iters=max(1, round(steps * config.warmup)))
    if config.decay == "cosine":
        made["decay"] = lr_scheduler.CosineAnnealingLR(optimizer, steps, config.learning_rate / 100)
    elif config.decay == "linear":
        made["decay"] = lr_scheduler.LinearLR(optimizer, 1.0, 0.01, total_iters=steps)
    made["plateau"] = lr_scheduler.ReduceLROnPlateau(optimizer, "max", patience=config.patience)
    return made
