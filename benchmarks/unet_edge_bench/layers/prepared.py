"""Whether two models were given the same input, and what tells the two inputs apart."""

from __future__ import annotations

import itertools

import torch
from torch import Tensor

from unet_edge_runtime.spec import ModelSpec

from .layer import UNIT

__all__ = ["input_reason"]

_ROUNDINGS = 8.0  # between a pixel and the network's input
_PREPARATION = ("mean", "std", "resample")  # not the padding: both are padded alike


def input_reason(theirs: Tensor, its: Tensor, stored: torch.dtype, reference: ModelSpec, candidate: ModelSpec) -> str:
    """One sentence on how the candidate's input differs from the reference's; empty where it does not.

    Args:
        theirs: (1, C, H, W), what the reference takes.
        its: what the candidate took, in the checkpoint's terms.
        stored: the type in which it took it.
        reference: its spec.
        candidate: its spec.
    """
    unit = UNIT["fp16" if stored == torch.float16 else "fp32"]
    if _equal(theirs, its, unit):
        return ""
    for order in itertools.permutations(range(theirs.shape[1])):
        if _equal(theirs[:, list(order)], its, unit):
            how = "BGR" if order == (2, 1, 0) else f"the order {', '.join(map(str, order))}"
            return f"The input reaches the candidate with its channels in another order: it takes {how}."
    for name in _PREPARATION:
        one, other = getattr(reference, name), getattr(candidate, name)
        if one != other:
            return f"The input differs: {name} is {_text(other)} for the candidate, {_text(one)} for the reference."
    factor = float((theirs * its).sum() / (theirs * theirs).sum())
    if _equal(theirs * factor, its, unit):
        return f"The input differs: the candidate takes {factor:.4g} times the reference's values."
    return f"The input differs by up to {float((its - theirs).abs().max()):.3g}: the images are not prepared alike."


def _equal(one: Tensor, other: Tensor, unit: float) -> bool:
    return bool(((one - other).abs() <= _ROUNDINGS * unit * one.abs().clamp(min=1.0)).all())


def _text(value: object) -> str:
    return str(value) if value != () else "none"
