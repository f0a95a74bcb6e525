"""The course of the learning rate, and batch norm that stands still at its end."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from torch.nn.modules.batchnorm import _BatchNorm

if TYPE_CHECKING:
    from torch import nn
    from torch.optim import Optimizer

    from .config import TrainConfig

__all__ = ["Schedule", "train_mode"]

LOWEST = 0.01  # share of the peak at which warm-up begins and cosine and linear decay end
POLY_POWER = 0.9  # DeepLab's (Chen et al., 2017, arXiv:1606.00915, section 4.1.1)
PLATEAU_FACTOR = 0.1
PLATEAU_GAIN = 1e-4  # a Dice counts as better from this share on, as in torch's ReduceLROnPlateau


class Schedule:
    """Learning rate = peak x warm-up x decay x plateau, in closed form, so that any step can be continued from.

    Args:
        optimizer: its groups' rates are governed.
        config: learning_rate, warmup, decay and patience are used.
        steps: length of the course.
    """

    def __init__(self, optimizer: Optimizer, config: TrainConfig, steps: int) -> None:
        self.optimizer, self.config = optimizer, config
        self.steps, self.done = steps, 0
        self.factor, self.best, self.waited = 1.0, -math.inf, 0
        self._apply()

    @property
    def rate(self) -> float:
        """The rate of the next step."""
        return self.config.learning_rate * self._warmup() * self._decay() * self.factor

    def step(self) -> None:
        """After every step of the optimiser."""
        self.done += 1
        self._apply()

    def validated(self, dice: float) -> None:
        """After every validation: divide the rate by ten when more than `patience` in a row brought nothing."""
        if dice > self.best + PLATEAU_GAIN * abs(self.best) or self.best == -math.inf:
            self.best, self.waited = dice, 0
            return
        self.waited += 1
        if self.waited > self.config.patience:
            self.factor, self.waited = self.factor * PLATEAU_FACTOR, 0
            self._apply()

    def state_dict(self) -> dict[str, Any]:
        """Plain numbers, from which `load_state_dict` goes on."""
        return {name: getattr(self, name) for name in ("steps", "done", "factor", "best", "waited")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Go on where `state_dict` was taken. Raises `KeyError` where a number is missing."""
        self.steps, self.done = int(state["steps"]), int(state["done"])
        self.factor, self.best, self.waited = float(state["factor"]), float(state["best"]), int(state["waited"])
        self._apply()

    def stretch(self, ratio: float) -> None:
        """Count on in steps of another size, of which the course has `ratio` times as many."""
        self.steps, self.done = max(1, round(self.steps * ratio)), round(self.done * ratio)
        self._apply()

    def _warmup(self) -> float:
        if not self.config.warmup:
            return 1.0
        return min(1.0, LOWEST + (1 - LOWEST) * self.done / max(1, round(self.steps * self.config.warmup)))

    def _decay(self) -> float:
        part = min(1.0, self.done / self.steps)
        if self.config.decay == "cosine":
            return LOWEST + (1 - LOWEST) * (1 + math.cos(math.pi * part)) / 2
        if self.config.decay == "linear":
            return 1 - (1 - LOWEST) * part
        return (1 - part) ** POLY_POWER if self.config.decay == "poly" else 1.0

    def _apply(self) -> None:
        for group in self.optimizer.param_groups:
            group["lr"] = self.rate


def train_mode(model: nn.Module, norm_frozen: bool) -> None:
    """Training mode; if `norm_frozen`, with batch norm as it will be used: on its running statistics.

    On varied images and small batches a network otherwise learns to rely on each batch's own statistics, which a
    single image at prediction does not have.
    """
    model.train()
    for module in model.modules() if norm_frozen else ():
        if isinstance(module, _BatchNorm):
            module.eval()
