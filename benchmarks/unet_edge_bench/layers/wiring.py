"""A graph's values followed back to the layers that make them, and the layers named as the checkpoint names them."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Sequence

from .layer import INPUT, Layer, Quantiser, Way

__all__ = ["MAX_DEPTH", "Wiring", "named", "renamed", "standard_convolutions"]

MAX_DEPTH = 8


class Wiring:
    """Values of a graph under construction.

    Args:
        image: the graph's input value.
    """

    def __init__(self, image: str) -> None:
        self._ways: dict[str, Way] = {image: Way(INPUT)}

    def __contains__(self, value: str) -> bool:
        return value in self._ways

    def ways(self, values: Sequence[str]) -> tuple[Way, ...]:
        """How the values that depend on the image reach the operation that takes them."""
        return tuple(self._ways[value] for value in values if value in self._ways)

    def made_by(self, value: str, layer: Layer) -> None:
        """Note that a layer makes a value."""
        self._ways[value] = Way(layer.name, layer.precision)

    def passed_on(
        self, source: str, value: str, precision: str = "fp32", quantiser: Quantiser | None = None, extra: str = ""
    ) -> None:
        """Note that a value is an earlier one, in another type or changed by an operation that the U-Net lacks."""
        way = self._ways[source]
        self._ways[value] = Way(
            way.layer,
            "fp16" if "fp16" in (way.precision, precision) else "fp32",
            quantiser or way.quantiser,
            (*way.extra, *([extra] if extra else [])),
        )


def standard_convolutions(depth: int, transposed: bool) -> list[str]:
    """Names of a U-Net's convolutions, upsampling ones among them, in order of execution."""
    pair = ("double_conv.0", "double_conv.2")
    names = [f"inc.{each}" for each in pair]
    names += [f"down{level}.maxpool_conv.1.{each}" for level in range(1, depth + 1) for each in pair]
    for step in range(1, depth + 1):
        names += [f"up{step}.up"] * transposed + [f"up{step}.conv.{each}" for each in pair]
    return [*names, "outc.conv"]


_KNOWN = {name.replace(".", "_"): name for name in standard_convolutions(MAX_DEPTH, transposed=True)}


def named(layers: list[Layer], weights: dict[str, str]) -> dict[str, str]:
    """The checkpoint's name of each layer.

    Convolutions go by the names of their weights where these tell it, such as "net.inc.double_conv.0.weight" or
    "p_net_inc_double_conv_0_weight_to_fp16", else by their order; other layers by the convolutions around them.

    Args:
        layers: in order of execution, under any names.
        weights: a layer's name -> its weight's.

    Returns:
        A layer's name -> the checkpoint's; a layer that has none there keeps its own.
    """
    convolutions = [layer for layer in layers if layer.kind in ("conv", "upconv")]
    names = {layer.name: _told(weights.get(layer.name, "")) for layer in convolutions}
    pools = sum(layer.kind == "pool" for layer in layers)
    standard = standard_convolutions(pools, any(layer.kind == "upconv" for layer in layers))
    told = [name for name in names.values() if name]
    if len(set(told)) < len(convolutions):
        fits = len(standard) == len(convolutions)
        names = dict(zip(names, standard if fits else [layer.name for layer in convolutions], strict=True))
    for layer in layers:
        if layer.kind == "relu":
            names[layer.name] = _next(names.get(layer.ways[0].layer, ""))
    for layer in reversed(layers):
        if layer.kind in ("pool", "upsample", "concat"):
            takers = [each for each in layers if any(way.layer == layer.name for way in each.ways)]
            names[layer.name] = _before(layer.kind, next((names.get(each.name, "") for each in takers), ""))
    return _unique({layer.name: names.get(layer.name) or layer.name for layer in layers})


def renamed(layers: list[Layer], names: dict[str, str]) -> tuple[Layer, ...]:
    """The layers under other names, wherever they are mentioned."""
    return tuple(
        dataclasses.replace(
            layer,
            name=names[layer.name],
            ways=tuple(dataclasses.replace(way, layer=names.get(way.layer, way.layer)) for way in layer.ways),
        )
        for layer in layers
    )


def _told(weight: str) -> str:
    plain = re.sub(r"[./]", "_", weight).removeprefix("p_").removeprefix("net_")
    return _KNOWN.get(plain.partition("_weight")[0], "")


def _next(convolution: str) -> str:
    """The activation after a convolution: "inc.double_conv.0" -> "inc.double_conv.1"."""
    stem, _, number = convolution.rpartition(".")
    return f"{stem}.{int(number) + 1}" if number.isdigit() else ""


def _before(kind: str, taker: str) -> str:
    """What feeds a layer: the pooling of a level, or the upsampling and the concatenation of a step."""
    block = taker.partition(".")[0]
    if kind == "pool":
        return f"{block}.maxpool_conv.0" if block.startswith("down") else ""
    if not re.fullmatch(r"up\d+", block):
        return ""
    return f"{block}.cat" if kind == "concat" else f"{block}.up"


def _unique(names: dict[str, str]) -> dict[str, str]:
    """A name that two layers would have goes to the first; the other keeps its own."""
    taken: set[str] = set()
    found = {}
    for own, name in names.items():
        found[own] = name if name not in taken else own
        taken.add(name)
    return found
