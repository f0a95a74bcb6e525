"""The same bits each time."""

from __future__ import annotations

import os
import random
from collections.abc import Iterator
from contextlib import contextmanager

import numpy as np
import torch

__all__ = ["deterministic_algorithms", "no_deterministic_way", "seed_everything"]


def seed_everything(seed: int) -> None:
    """Seed Python's, numpy's and torch's generators, on every device."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.manual_seed(seed)


@contextmanager
def deterministic_algorithms(wanted: bool) -> Iterator[None]:
    """A context in which torch uses only operations that give the same bits each time; nothing if not `wanted`.

    See https://docs.pytorch.org/docs/stable/notes/randomness.html.
    """
    if not wanted:
        yield
        return
    cudnn, strict = torch.backends.cudnn, torch.are_deterministic_algorithms_enabled()
    before = cudnn.deterministic, cudnn.benchmark
    # cuBLAS sums in a fixed order only in a workspace of fixed size; it reads this when it starts.
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
    torch.use_deterministic_algorithms(True)
    cudnn.deterministic, cudnn.benchmark = True, False
    try:
        yield
    finally:
        torch.use_deterministic_algorithms(strict)
        cudnn.deterministic, cudnn.benchmark = before


def no_deterministic_way(error: RuntimeError, device: torch.device) -> str:
    """What torch says about an operation that it can only do otherwise, in a line with a remedy."""
    what = str(error).partition(" does not have")[0].splitlines()[0]
    return f"{what} has no deterministic way on {device}: leave --deterministic out, or train with --device cpu"
