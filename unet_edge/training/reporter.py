"""What a run tells while it goes."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Reporter"]


class Reporter:
    """What a run tells while it goes; this one is silent."""

    @contextmanager
    def epoch(self, epoch: int, epochs: int, images: int) -> Iterator[None]:
        """Around the training part of an epoch with `images` left to do."""
        yield

    def step(self, images: int, loss: float, learning_rate: float) -> None:
        """After each step."""

    def validation(self, epoch: int, scores: dict[str, Any], is_best: bool) -> None:
        """After each validation."""

    def validating(self, pairs: Any) -> Any:
        """Wraps the validation pairs, for a progress bar."""
        return pairs
