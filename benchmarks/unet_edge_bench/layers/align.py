"""Which layer of one model is which of the other, and whether the two are the same network at all."""

from __future__ import annotations

import difflib
from collections.abc import Iterator
from dataclasses import dataclass

from .layer import Layer
from .model import LayeredModel

__all__ = ["Pair", "align", "other_network"]

_DECODERS = {True: "transposed convolutions", False: "interpolation"}


@dataclass(frozen=True)
class Pair:
    """A layer of the reference and its counterpart; one of them is None where the other model lacks it."""

    reference: Layer | None
    candidate: Layer | None

    @property
    def name(self) -> str:
        """The reference's name of the layer, where it has one."""
        layer = self.reference or self.candidate
        assert layer is not None
        return layer.name


def other_network(reference: LayeredModel, candidate: LayeredModel) -> str:
    """What tells the two architectures apart, or "" where nothing does."""
    found = [
        f"{what} {theirs} in the reference and {its} in the candidate"
        for what, theirs, its in zip(_FACTS, _facts(reference), _facts(candidate), strict=True)
        if theirs != its
    ]
    return f"The two are not the same network: {'; '.join(found)}." if found else ""


def align(reference: LayeredModel, candidate: LayeredModel) -> list[Pair]:
    """Pairs in order of execution: by name where both name the same layers, else by order and kind."""
    named = {layer.name: layer for layer in candidate.layers}
    if [layer.name for layer in reference.layers] == list(named):
        return [Pair(layer, named[layer.name]) for layer in reference.layers]
    return list(_by_kind(reference.layers, candidate.layers))


_FACTS = ("image channels:", "channels of the first layer:", "depth:", "upsampling by", "outputs:")


def _facts(model: LayeredModel) -> tuple[object, ...]:
    convolutions = [layer for layer in model.layers if layer.kind == "conv" and layer.weight is not None]
    first, last = convolutions[0].weight, convolutions[-1].weight
    assert first is not None
    assert last is not None
    return (
        first.shape[1],
        first.shape[0],
        sum(layer.kind == "pool" for layer in model.layers),
        _DECODERS[any(layer.kind == "upconv" for layer in model.layers)],
        last.shape[0],
    )


def _by_kind(reference: tuple[Layer, ...], candidate: tuple[Layer, ...]) -> Iterator[Pair]:
    kinds = [layer.kind for layer in reference], [layer.kind for layer in candidate]
    matcher = difflib.SequenceMatcher(None, kinds[0], kinds[1], autojunk=False)
    for _, start, end, other_start, other_end in matcher.get_opcodes():
        left, right = reference[start:end], candidate[other_start:other_end]
        paired = min(len(left), len(right))
        yield from (Pair(one, other) for one, other in zip(left, right, strict=False))
        yield from (Pair(one, None) for one in left[paired:])
        yield from (Pair(None, other) for other in right[paired:])
