"""What follows the logits inside the graph: probabilities or a class map, judged on the candidate's own logits."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from unet_edge_runtime.spec import ModelSpec

from .layer import UNIT
from .model import LayeredModel

__all__ = ["JudgedHead", "judge_head", "outputs"]

_ROUNDINGS = 8.0  # of an exponential, a sum and a division, in units of an output of at most 1


@dataclass(frozen=True)
class JudgedHead:
    """The head of a candidate on its own logits.

    Attributes:
        error: largest difference of probabilities, or of labels where the logits are decided.
        rounding: that of probabilities as a multiple of what rounding explains; of labels infinite or 0.
        reason: what is wrong, to follow "head "; empty where nothing is.
    """

    error: float
    rounding: float
    reason: str = ""


def outputs(value: Tensor, spec: ModelSpec) -> Tensor:
    """The head's result as (1, K, H, W) float32: probabilities, or labels for every form of class map."""
    value = value.float()
    value = value.reshape(1, -1, *value.shape[-2:])
    if not spec.label_values:
        return value
    table = torch.tensor(spec.label_values, dtype=torch.float32).reshape(1, -1, 1, 1)
    return (value - table).abs().argmin(dim=1, keepdim=True).float()


def judge_head(model: LayeredModel, logits: Tensor, got: Tensor) -> JudgedHead:
    """Compare a head with its spec.

    Args:
        model: the candidate.
        logits: its last layer's result, in its own terms.
        got: its output, as `outputs` returns.
    """
    unit, logits = UNIT[model.layers[-1].narrowest], logits.float()
    if model.spec.head == "classmap":
        return _judge_labels(model, logits, got, unit)
    expected = logits.sigmoid() if logits.shape[1] == 1 else logits.softmax(dim=1)
    error = float((got - expected).abs().nan_to_num(nan=torch.inf, posinf=torch.inf).max())
    rounding = error / (_ROUNDINGS * unit * max(1.0, float(logits.abs().max())))
    function = "sigmoid" if logits.shape[1] == 1 else "softmax"
    wrong = f"differs from the {function} of its own logits by up to {error:.3g}"
    return JudgedHead(error, rounding, wrong if rounding > 1 else "")


def _judge_labels(model: LayeredModel, logits: Tensor, got: Tensor, unit: float) -> JudgedHead:
    if logits.shape[1] == 1:
        margin, expected = (logits - model.limit).abs(), (logits > model.limit).float()
    else:
        best = logits.topk(2, dim=1).values
        margin, expected = best[:, :1] - best[:, 1:], logits.argmax(dim=1, keepdim=True).float()
    sure = margin > _ROUNDINGS * unit * logits.abs().max()
    wrong = (got != expected) & sure
    if not bool(wrong.any()):
        return JudgedHead(0.0, 0.0)
    reason = f"gives other labels than its own logits at {int(wrong.sum())} of {wrong.numel()} pixels"
    return JudgedHead(float((got - expected).abs()[wrong].max()), torch.inf, reason + _threshold(model, logits, got))


def _threshold(model: LayeredModel, logits: Tensor, got: Tensor) -> str:
    """The threshold that would explain the labels of a model with one output."""
    if logits.shape[1] != 1 or not (got == 0).any() or not (got == 1).any():
        return ""
    low, high = logits[got == 0].max(), logits[got == 1].min()
    if low > high:
        return ""
    share = float(((low + high) / 2).sigmoid())
    return f": it decides at a probability of {share:.3f}, and its spec says {model.spec.threshold:g}"
