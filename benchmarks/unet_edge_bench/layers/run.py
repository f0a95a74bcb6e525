"""Both models run, every layer judged, and the first that departs explained."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .align import Pair, align, other_network
from .cause import explain
from .head import judge_head, outputs
from .judge import Judged, judge, moved_weights
from .layer import INPUT, Layer
from .model import HEAD, LayeredModel
from .prepared import input_reason
from .report import LayerRow

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["run_both"]

Growth = tuple[float | None, float | None]
"""Largest difference, and SNR in dB."""


def run_both(
    reference: LayeredModel,
    candidate: LayeredModel,
    theirs: NDArray[np.float32],
    its: NDArray[np.float32],
) -> tuple[list[LayerRow], LayerRow | None, str]:
    """Compare two open models.

    The candidate's values are kept, the reference's are compared as they come and let go.

    Args:
        reference: what is right.
        candidate: what is judged.
        theirs: (1, C, H, W), the reference's input.
        its: the candidate's.

    Returns:
        The rows in order of execution, the first that departs, and why; no rows where they are not the same network.
    """
    problem = other_network(reference, candidate)
    if problem:
        return [], None, problem
    pairs = align(reference, candidate)
    values: dict[str, Tensor] = {}
    candidate.run(its, values.__setitem__)
    with torch.inference_mode():
        found = [*_judged_rows(reference, candidate, pairs, values, theirs)]
        growth = _growth(reference, candidate, pairs, values, theirs)
    rows = []
    for row, _ in found:
        largest, snr = growth.get(row.name, (None, None))
        rows.append(dataclasses.replace(row, max_difference=largest, snr_db=snr))
    for row, (_, reason) in zip(rows, found, strict=True):
        if row.departs:
            return rows, row, reason
    return rows, None, _other_threshold(reference, candidate)


def _judged_rows(
    reference: LayeredModel,
    candidate: LayeredModel,
    pairs: list[Pair],
    values: dict[str, Tensor],
    theirs: NDArray[np.float32],
) -> Iterator[tuple[LayerRow, str]]:
    """Each row without the error's growth, and why it departs."""
    its = candidate.plain(INPUT, values[INPUT])
    reason = input_reason(torch.from_numpy(theirs), its, values[INPUT].dtype, reference.spec, candidate.spec)
    yield _row(INPUT, INPUT, its, None, bool(reason)), reason
    sources = {INPUT: INPUT}
    for pair in pairs:
        if pair.candidate is not None and pair.reference is not None:
            yield _matched(pair.reference, pair.candidate, candidate, values, sources)
            sources[pair.reference.name] = pair.candidate.name
        elif pair.candidate is not None:
            got = candidate.plain(pair.candidate.name, values[pair.candidate.name])
            reason = f"{pair.name} is an additional {pair.candidate.operation}, which the reference does not have."
            yield _row(pair.name, pair.candidate.kind, got, None, True), reason
        elif pair.reference is not None:
            # Without the layer its input goes on.
            sources[pair.name] = sources[pair.reference.ways[0].layer]
            got = candidate.plain(sources[pair.name], values[sources[pair.name]])
            yield _row(pair.name, pair.reference.kind, got, None, True), f"{pair.name} is missing in the candidate."
    if candidate.has_head:
        got = outputs(values[HEAD], candidate.spec)
        head = judge_head(candidate, values[candidate.layers[-1].name], got)
        rounding = None if math.isinf(head.rounding) else head.rounding
        row = LayerRow(HEAD, HEAD, tuple(got.shape[1:]), None, None, head.error, rounding, bool(head.reason))
        yield row, f"The head {head.reason}." if head.reason else ""


def _matched(
    reference: Layer, layer: Layer, candidate: LayeredModel, values: dict[str, Tensor], sources: dict[str, str]
) -> tuple[LayerRow, str]:
    got = candidate.plain(layer.name, values[layer.name])
    names = [sources[way.layer] for way in reference.ways]
    inputs = [candidate.plain(name, values[name]) for name in names]
    judged: Judged | None = None
    # What follows an overflow is not to blame for it.
    if all(bool(each.isfinite().all()) for each in inputs):
        try:
            judged = judge(reference, layer, inputs, got)
        except ValueError:
            judged = None
        departs = judged is None or judged.rounding > 1
    else:
        departs = False
    moved = any(mask is not None for mask in moved_weights(reference, layer))
    departs = departs or moved
    row = _row(reference.name, layer.kind, got, judged, departs, _note(layer, judged, moved))
    return row, explain(reference, layer, judged, candidate.factors.get(layer.name, 1.0)) if departs else ""


def _note(layer: Layer, judged: Judged | None, moved: bool) -> str:
    parts = [layer.compression]
    if any(way.quantiser for way in layer.ways):
        parts.append("8-bit activations")
    if moved and judged is not None and judged.rounding <= 1 and not layer.compression:
        parts.append("other weights, which this image does not show")
    return "; ".join(part for part in parts if part)


def _row(name: str, kind: str, got: Tensor, judged: Judged | None, departs: bool, note: str = "") -> LayerRow:
    error, rounding = (judged.error, judged.rounding) if judged else (None, None)
    return LayerRow(name, kind, tuple(got.shape[1:]), None, None, error, rounding, departs, note)


def _growth(
    reference: LayeredModel,
    candidate: LayeredModel,
    pairs: list[Pair],
    values: dict[str, Tensor],
    theirs: NDArray[np.float32],
) -> dict[str, Growth]:
    """Name of a row -> its difference from the reference, with the errors of all layers before it."""
    matched = {pair.reference.name: pair.candidate.name for pair in pairs if pair.reference and pair.candidate}
    matched[INPUT] = INPUT
    found: dict[str, Growth] = {}

    def see(name: str, value: Tensor) -> None:
        if name in matched:
            own = matched[name]
            found[name] = _difference(reference.plain(name, value), candidate.plain(own, values[own]))
        elif name == HEAD and HEAD in values and reference.spec.head == candidate.spec.head:
            found[name] = _difference(outputs(value, reference.spec), outputs(values[HEAD], candidate.spec))

    reference.run(theirs, see)
    return found


def _difference(reference: Tensor, candidate: Tensor) -> Growth:
    if reference.shape != candidate.shape:
        return None, None
    error = (candidate - reference).double()
    largest = float(error.abs().max().nan_to_num(nan=math.inf, posinf=math.inf))
    power = float(error.square().sum())
    if not power or not math.isfinite(power):
        return largest, None
    signal = float(reference.double().square().sum())
    return largest, 10 * math.log10(signal / power) if signal else None


def _other_threshold(reference: LayeredModel, candidate: LayeredModel) -> str:
    """A class map hides its threshold from every other comparison."""
    theirs, its = reference.spec.threshold, candidate.spec.threshold
    if candidate.spec.head != "classmap" or not candidate.spec.is_binary or theirs == its:
        return ""
    return f"The layers agree; the candidate decides at a probability of {its:g}, the reference at {theirs:g}."
