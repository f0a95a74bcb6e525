"""What a run tells while it goes."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

__all__ = ["Reporter"]


class Reporter:
    """What a run tells while it goes; this one is silent."""

    @contextmanager
    def epoch(
        self, epoch: int, epochs: int, images: int, whole: int | None = None, before: tuple[int, float] = (0, 0.0)
    ) -> Iterator[None]:
        """Around the training part of an epoch.

        Args:
            epoch: from 1.
            epochs: of the run.
            images: left to do in this epoch.
            whole: images of an epoch, where a resumed one has fewer left.
            before: steps of this epoch that are done already, and the sum of their losses.
        """
        yield

    def step(self, images: int, loss: float, learning_rate: float, dice: float | None = None) -> None:
        """After each step.

        Args:
            images: of this step.
            loss: of this step.
            learning_rate: of this step.
            dice: of the last validation, where `validation` was not called in this process.
        """

    @contextmanager
    def validating(self, images: int) -> Iterator[Callable[..., None]]:
        """Around a validation of so many images.

        Yields:
            What to call after each of them; arguments are left aside.
        """
        yield lambda *_: None

    def validation(self, epoch: int, scores: dict[str, Any], is_best: bool) -> None:
        """After each validation; `scores` as `ConfusionMatrix.summary` gives them."""

    def note(self, text: str) -> None:
        """Something that happened on the way, as one line."""
