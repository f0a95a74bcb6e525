"""torch.compile where there is a compiler, and the plain network where there is none."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

__all__ = ["compile_failure", "compiled"]

COMPILER = ("torch._dynamo", "torch._inductor", "torch._functorch")


def compiled(module: nn.Module, say: Callable[[str], None]) -> Callable[[Tensor], Tensor]:
    """The network's compiled form, which shares its weights; the network itself where torch refuses at once.

    Whether there is a compiler shows only when the first batch comes: see `compile_failure`.

    Args:
        module: the network; it stays as it is, the names of its weights too.
        say: is told of a refusal, as on a version of Python that torch does not compile for.
    """
    try:
        return torch.compile(module)
    except RuntimeError as error:
        say(without_compiling(str(error)))
        return module


def compile_failure(error: BaseException | None) -> str | None:
    """What torch's compiler complains of, as a note; None for an error from elsewhere.

    A failure in the forward pass arrives as one of torch's errors, one in the backward pass may be their cause.
    """
    while error is not None:
        if type(error).__module__.startswith(COMPILER):
            return without_compiling(str(error) or type(error).__name__)
        error = error.__cause__
    return None


def without_compiling(complaint: str) -> str:
    """The note to the user."""
    return f"torch.compile fails here ({complaint.strip().splitlines()[0]}): going on without it"
