"""An open model whose every value can be seen, whatever its format."""

from __future__ import annotations

import abc
import dataclasses
import math
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import Tensor

from unet_edge_runtime.spec import ModelSpec

from .layer import INPUT, Layer

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["HEAD", "LayeredModel", "See"]

HEAD = "head"
"""What the model's own output is called where it is more than the network's logits."""

See = Callable[[str, Tensor], None]
"""Is told of a value: the name of the layer that made it (or `INPUT`, or `HEAD`), and the value in its own type."""


class LayeredModel(abc.ABC):
    """A model as layers, in the checkpoint's terms.

    A package that takes pictures has 1/255 inside its first two convolutions, and a class map of two outputs has the
    threshold in its last bias. Both are undone here (`plain`, and in the layers), so that values and weights of all
    formats can be compared as they are.

    Attributes:
        path: the file.
        spec: the model's.
        layers: the network without its head, in order of execution.
        sizes: (height, width) that its input may have; empty for any multiple of the spec's `multiple`.
        factors: layer -> what its values are multiplied by to be the checkpoint's.
        has_head: whether the graph returns something else than the network's logits.
    """

    path: Path
    spec: ModelSpec
    layers: tuple[Layer, ...]
    sizes: tuple[tuple[int, int], ...] = ()
    has_head: bool = False

    def __init__(self) -> None:
        self.factors: dict[str, float] = {}

    @abc.abstractmethod
    def run(self, batch: NDArray[np.float32], see: See) -> None:
        """Run one image.

        Args:
            batch: (1, C, H, W) as `preprocess` and `pad_image` make it.
            see: is told of every value as soon as it is there; it must not change any.

        Raises:
            BackendError: the runtime failed.
        """

    def plain(self, name: str, value: Tensor) -> Tensor:
        """A value that `see` was given as fp32 and in the checkpoint's terms."""
        value = value.float()
        if name in self.factors:
            value = value * self.factors[name]
        if self.layers and name == self.layers[-1].name:
            return self._plain_logits(value)
        return value

    @property
    def limit(self) -> float:
        """The logit of the spec's threshold."""
        return math.log(self.spec.threshold / (1 - self.spec.threshold))

    def _plain_logits(self, logits: Tensor) -> Tensor:
        if self.spec.head != "classmap":
            return logits
        if logits.shape[1] == 2 and (self.spec.is_binary or self.spec.outputs == 1):
            logits = logits.clone()
            logits[:, 1] += self.limit
        return logits[:, 1:] if self.spec.outputs == 1 and logits.shape[1] == 2 else logits

    def _undo_threshold(self) -> None:
        """Bring the last layer's weights into the checkpoint's terms, as `plain` does its values."""
        last = self.layers[-1]
        if self.spec.head != "classmap" or last.weight is None or last.bias is None or len(last.bias) != 2:
            return
        bias = last.bias.clone()
        bias[1] += self.limit
        changes = {"bias": bias}
        if self.spec.outputs == 1:
            parts = {"weight": last.weight, "bias": bias, "weight_step": last.weight_step, "bias_step": last.bias_step}
            changes = {key: value[1:] for key, value in parts.items() if value is not None}
        self.layers = (*self.layers[:-1], dataclasses.replace(last, **changes))  # type: ignore[arg-type]

    def _undo_pixels(self, share: float) -> None:
        """Bring the layers of a package that takes 0..255 into the checkpoint's terms (`fold_pixel_scale`)."""
        convolutions = [layer for layer in self.layers if layer.kind == "conv"][:2]
        between = [layer for layer in self.layers if layer.ways[0].layer == convolutions[0].name]
        self.factors = {INPUT: 1 / 255, **{layer.name: 1 / share for layer in (convolutions[0], *between)}}
        scaled = {
            convolutions[0].name: _scaled(convolutions[0], 255 / share, 1 / share),
            convolutions[1].name: _scaled(convolutions[1], share, 1.0),
        }
        self.layers = tuple(scaled.get(layer.name, layer) for layer in self.layers)


def _scaled(layer: Layer, weight: float, bias: float) -> Layer:
    def by(tensor: Tensor | None, factor: float) -> Tensor | None:
        return None if tensor is None else tensor * factor

    return dataclasses.replace(
        layer,
        weight=by(layer.weight, weight),
        weight_step=by(layer.weight_step, weight),
        bias=by(layer.bias, bias),
        bias_step=by(layer.bias_step, bias),
    )
