"""A checkpoint as layers: PyTorch's own modules, batch norm folded as the export folds it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import nn

from unet_edge.checkpoint import read_checkpoint
from unet_edge.model import UNetConfig
from unet_edge_export.graph import fold_batch_norm

from .layer import INPUT, Layer, Way
from .model import LayeredModel, See

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["CheckpointModel"]


class CheckpointModel(LayeredModel):
    """A checkpoint; arguments and errors are those of `read_checkpoint`."""

    def __init__(self, path: Path, scale: float | None = None) -> None:
        super().__init__()
        checkpoint = read_checkpoint(path, scale)
        self.path, self.spec = path, checkpoint.spec
        self.net = fold_batch_norm(checkpoint.build())
        self.layers = _layers(self.net, checkpoint.config)

    def run(self, batch: NDArray[np.float32], see: See) -> None:
        """Through the modules' own forward, watched by hooks."""
        modules = dict(self.net.named_modules())
        handles = []
        for layer in self.layers:
            if layer.kind == "concat":
                taker = modules[layer.name.replace(".cat", ".conv.double_conv.0")]
                handles.append(taker.register_forward_pre_hook(_before(layer.name, see)))
            else:
                handles.append(modules[layer.name].register_forward_hook(_after(layer.name, see)))
        try:
            with torch.inference_mode():
                x = torch.from_numpy(batch)
                see(INPUT, x)
                self.net(x)
        finally:
            for handle in handles:
                handle.remove()


def _before(name: str, see: See) -> Callable[..., None]:
    return lambda module, inputs: see(name, inputs[0])


def _after(name: str, see: See) -> Callable[..., None]:
    return lambda module, inputs, output: see(name, output)


def _layers(net: nn.Module, config: UNetConfig) -> tuple[Layer, ...]:
    """The modules in the order of the forward pass, which is that of their definition; `cat` is none of them."""
    layers: list[Layer] = []
    skips: list[str] = []
    last = INPUT
    for name, module in net.named_modules():
        if any(module.children()):
            continue
        if isinstance(module, nn.MaxPool2d):
            skips.append(last)
        layers.append(_layer(name, module, last))
        last = name
        if name.startswith("up") and name.endswith(".up"):
            joined = name.replace(".up", ".cat")
            ways = (Way(skips.pop()), Way(last))
            layers.append(Layer(joined, "concat", "cat", ways, options={"axis": 1}))
            last = joined
    assert not skips, config
    return tuple(layers)


def _layer(name: str, module: nn.Module, source: str) -> Layer:
    ways = (Way(source),)
    if isinstance(module, nn.Conv2d | nn.ConvTranspose2d):
        kind = "conv" if isinstance(module, nn.Conv2d) else "upconv"
        bias = None if module.bias is None else module.bias.detach()
        return Layer(name, kind, kind, ways, module.weight.detach(), bias, options=_window(module))
    if isinstance(module, nn.MaxPool2d):
        options = {"how": "max", "kernel": (2, 2), "stride": (2, 2), "pads": (0, 0, 0, 0)}
        return Layer(name, "pool", "max_pool", ways, options=options)
    if isinstance(module, nn.Upsample):
        options = {"mode": "STRICT_ALIGN_CORNERS", "factor": (2.0, 2.0)}
        return Layer(name, "upsample", "bilinear", ways, options=options)
    assert isinstance(module, nn.ReLU), name
    return Layer(name, "relu", "relu", ways)


def _window(module: nn.Conv2d | nn.ConvTranspose2d) -> dict[str, Any]:
    vertical, horizontal = (int(side) for side in module.padding)
    return {
        "stride": tuple(module.stride),
        "pads": (vertical, horizontal, vertical, horizontal),
        "dilation": tuple(module.dilation),
        "groups": module.groups,
    }
