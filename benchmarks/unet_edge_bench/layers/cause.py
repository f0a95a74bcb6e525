"""Why a layer departs: causes are tried on the same inputs, and the one that explains the result is named."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import torch
from torch import Tensor

from .judge import Judged, judge, moved_weights
from .layer import FP16_MAX, Layer

__all__ = ["explain"]

_RESIZED = {
    "STRICT_ALIGN_CORNERS": "aligns corners",
    "ALIGN_CORNERS": "aligns corners",
    "UNALIGN_CORNERS": "interpolates with half-pixel centres",
    "DEFAULT": "interpolates from the top left corners of the pixels",
    "OFFSET_CORNERS": "interpolates with offset corners",
    "nearest": "repeats the nearest value",
    "bicubic": "interpolates bicubically",
}
_OPTIONS = {
    "pads": "pads by {} (top, left, bottom, right)",
    "stride": "has a stride of {}",
    "dilation": "has a dilation of {}",
    "groups": "has {} groups",
    "kernel": "has a window of {}",
    "how": "takes the {} of its windows",
    "axis": "joins along side {}",
    "factor": "enlarges by {}",
}


def explain(reference: Layer, candidate: Layer, judged: Judged | None, factor: float = 1.0) -> str:
    """One sentence that names the layer and the cause.

    Args:
        reference: its layer.
        candidate: the counterpart that departs.
        judged: the comparison on the candidate's inputs; None where it could not be made.
        factor: what brings the candidate's own values into the reference's terms.
    """
    found = _not_finite(reference, candidate) or _overflow(candidate, judged, factor)
    if not found:
        found = "; ".join(each for each in (_weights(reference, candidate), _bias(reference, candidate)) if each)
    if not found and reference.kind != candidate.kind:
        found = f"is a {candidate.operation} where the reference has a {reference.kind}"
    if not found and judged is not None:
        found = _options(reference, candidate, judged) or _order(reference, candidate, judged)
    extra = [name for way in candidate.ways for name in way.extra]
    if not found and extra:
        found = f"has an additional {', '.join(extra)} before it"
    return f"{reference.name} {found or 'computes something else than the reference'}."


def _not_finite(reference: Layer, candidate: Layer) -> str:
    theirs, its = reference.weight, candidate.weight
    if theirs is None or its is None or bool(its.isfinite().all()):
        return ""
    largest = float(theirs.abs().max())
    range_of = f" (the reference's reach {largest:.3g}, and fp16 ends at {FP16_MAX:.0f})" if largest > FP16_MAX else ""
    return f"has weights that are NaN or infinite, {int((~its.isfinite()).sum())} of {its.numel()}{range_of}"


def _overflow(candidate: Layer, judged: Judged | None, factor: float) -> str:
    if judged is None or candidate.narrowest != "fp16" or bool(judged.got.isfinite().all()):
        return ""
    reached = [float(each.abs().max()) / factor for each in (*judged.inputs, judged.expected)]
    largest = max((each for each in reached if math.isfinite(each)), default=0.0)
    if largest <= FP16_MAX:
        return ""
    return f"overflows fp16: values reach {largest:.3g} there, and fp16 ends at {FP16_MAX:.0f}"


def _weights(reference: Layer, candidate: Layer) -> str:
    moved, _ = moved_weights(reference, candidate)
    theirs, its = reference.weight, candidate.weight
    if theirs is None or its is None:
        return ""
    if theirs.shape != its.shape:
        return f"has weights of {tuple(its.shape)} where the reference has {tuple(theirs.shape)}"
    if moved is None:
        return ""
    return _permuted(reference, candidate) or _multiplied(theirs, its) or _changed("weights", theirs, its, moved)


def _bias(reference: Layer, candidate: Layer) -> str:
    _, moved = moved_weights(reference, candidate)
    if moved is None:
        return ""
    if reference.bias is None or candidate.bias is None:
        return f"has {'no' if candidate.bias is None else 'a'} bias, unlike the reference"
    if reference.bias.shape != candidate.bias.shape:
        return f"has {len(candidate.bias)} biases where the reference has {len(reference.bias)}"
    return _changed("biases", reference.bias, candidate.bias, moved)


def _permuted(reference: Layer, candidate: Layer) -> str:
    """Weights that are the reference's in another order of channels."""
    theirs, its = reference.weight, candidate.weight
    assert theirs is not None
    assert its is not None
    first = reference.kind == "conv" and theirs.shape[1] <= 4
    for order in itertools.permutations(range(theirs.shape[1])) if first else ():
        if _fits(reference, candidate, theirs[:, list(order)]):
            if order == (2, 1, 0):
                return "takes BGR where the reference takes RGB: its weights are those, channels reversed"
            return f"takes the input's channels in another order: {', '.join(map(str, order))}"
    if reference.kind == "conv" and theirs.shape[2:] == (1, 1):
        order = tuple(int((row - theirs).abs().flatten(1).sum(dim=1).argmin()) for row in its)
        if len(set(order)) == len(order) and _fits(reference, candidate, theirs[list(order)]):
            return f"returns the classes in another order: {', '.join(map(str, order))}"
    return ""


def _fits(reference: Layer, candidate: Layer, weight: Tensor) -> bool:
    return moved_weights(dataclasses.replace(reference, weight=weight), candidate)[0] is None


def _multiplied(theirs: Tensor, its: Tensor) -> str:
    power = float((theirs * theirs).sum())
    factor = float((theirs * its).sum()) / power if power else 0.0
    if (
        not factor
        or abs(factor - 1) < 1e-4
        or bool(((its - factor * theirs).abs() > 1e-3 * (factor * theirs).abs().max()).any())
    ):
        return ""
    hint = " (it seems to expect pixels of another range)" if max(abs(factor), abs(1 / factor)) > 200 else ""
    return f"has {factor:.6g} times the reference's weights{hint}"


def _changed(what: str, theirs: Tensor, its: Tensor, moved: Tensor) -> str:
    largest = float((its - theirs).abs()[moved].max())
    count, total = int(moved.sum()), moved.numel()
    return (
        f"has other {what}: {count} of {total} differ{'s' if count == 1 else ''}, by up to {largest:.3g} "
        f"(the reference's reach {float(theirs.abs().max()):.3g})"
    )


def _options(reference: Layer, candidate: Layer, judged: Judged) -> str:
    """Try what the candidate declares, and the other ways to resize."""
    for options in _variants(reference, candidate):
        if _explains(dataclasses.replace(reference, options=options), candidate, judged):
            return _text(reference, options)
    return ""


def _variants(reference: Layer, candidate: Layer) -> Iterator[dict[str, object]]:
    if candidate.kind == reference.kind and candidate.options != reference.options:
        yield candidate.options
    if reference.kind == "upsample":
        for mode in _RESIZED:
            if mode not in (reference.options["mode"], candidate.options.get("mode")):
                yield {**reference.options, "mode": mode}


def _text(reference: Layer, options: dict[str, object]) -> str:
    parts = []
    for key, value in options.items():
        theirs = reference.options.get(key)
        if value == theirs:
            continue
        if key == "mode":
            parts.append(f"{_RESIZED.get(str(value), value)}; the reference {_RESIZED.get(str(theirs), theirs)}")
        else:
            parts.append(f"{_OPTIONS[key].format(value)}, the reference {_OPTIONS[key].format(theirs)}")
    return " and ".join(parts)


def _order(reference: Layer, candidate: Layer, judged: Judged) -> str:
    if reference.kind != "concat":
        return ""
    for order in itertools.permutations(range(len(judged.inputs))):
        shuffled = dataclasses.replace(judged, inputs=[judged.inputs[index] for index in order])
        if order != tuple(range(len(order))) and _explains(reference, candidate, shuffled):
            return "joins its inputs in another order than the reference"
    return ""


def _explains(layer: Layer, candidate: Layer, judged: Judged) -> bool:
    try:
        with torch.inference_mode():
            return judge(layer, candidate, judged.inputs, judged.got).rounding <= 1
    except ValueError:
        return False
