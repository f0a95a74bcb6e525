"""The U-Net: milesial's network by default, at any width and depth."""

from __future__ import annotations

import contextlib
import functools
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from unet_edge_runtime.errors import ModelFileError

__all__ = ["CHECKPOINTING", "UNet", "UNetConfig"]

CHECKPOINTING = ("none", "encoder", "all")  # from the fastest to the smallest


@dataclass(frozen=True)
class UNetConfig:
    """Shape of a U-Net.

    Attributes:
        in_channels: channels of the image.
        classes: channels of the logits.
        base_channels: channels of the first block; each level down doubles them.
        depth: how often the image is halved.
        up: how the decoder doubles the size: "transposed" convolution, or "bilinear" interpolation, which
            has fewer parameters and is the cheaper one on every CPU runtime measured.
    """

    in_channels: int = 3
    classes: int = 2
    base_channels: int = 64
    depth: int = 4
    up: str = "transposed"

    def __post_init__(self) -> None:
        if self.up not in ("transposed", "bilinear"):
            raise ValueError(f"up must be 'transposed' or 'bilinear', not {self.up!r}")
        if min(self.in_channels, self.classes, self.base_channels, self.depth) < 1 or self.depth > 8:
            raise ValueError(f"channels, classes and width must be at least 1, depth 1 to 8: {self}")

    @property
    def multiple(self) -> int:
        """The sides of an input must be multiples of this."""
        return 1 << self.depth

    @classmethod
    def from_state_dict(cls, weights: Mapping[str, Tensor], origin: str = "the checkpoint") -> UNetConfig:
        """Read the architecture off the shapes of a state dict with milesial's key names.

        Raises:
            ModelFileError: the keys or shapes are those of another network.
        """
        try:
            first, last = weights["inc.double_conv.0.weight"], weights["outc.conv.weight"]
            depth = sum(1 for level in range(1, 9) if f"down{level}.maxpool_conv.1.double_conv.0.weight" in weights)
            config = cls(
                in_channels=first.shape[1],
                classes=last.shape[0],
                base_channels=first.shape[0],
                depth=depth,
                up="transposed" if "up1.up.weight" in weights else "bilinear",
            )
        except (KeyError, IndexError, AttributeError, ValueError):
            raise ModelFileError(_foreign(origin, list(weights))) from None
        with torch.device("meta"):
            expected = {name: value.shape for name, value in UNet(config).state_dict().items()}
        arrived = {name: value.shape for name, value in weights.items()}
        odd = sorted(name for name in expected.keys() | arrived.keys() if expected.get(name) != arrived.get(name))
        if odd:
            raise ModelFileError(_foreign(origin, odd))
        return config


class DoubleConv(nn.Module):
    """Twice: 3x3 convolution without bias, batch norm, ReLU."""

    def __init__(self, in_channels: int, out_channels: int, mid_channels: int | None = None) -> None:
        super().__init__()
        mid_channels = mid_channels or out_channels
        self.double_conv = nn.Sequential(
            nn.Conv2d(in_channels, mid_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(mid_channels),
            nn.ReLU(inplace=True),
            nn.Conv2d(mid_channels, out_channels, kernel_size=3, padding=1, bias=False),
            nn.BatchNorm2d(out_channels),
            nn.ReLU(inplace=True),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.double_conv(x)


class Down(nn.Module):
    """Halve the size, then `DoubleConv`."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        # The explicit stride matters: coremltools' torch.export path fails on a pooling without one.
        self.maxpool_conv = nn.Sequential(nn.MaxPool2d(2, stride=2), DoubleConv(in_channels, out_channels))

    def forward(self, x: Tensor) -> Tensor:
        return self.maxpool_conv(x)


class Up(nn.Module):
    """Double the size, join the encoder's features of that size, then `DoubleConv`."""

    def __init__(self, in_channels: int, out_channels: int, bilinear: bool) -> None:
        super().__init__()
        self.up: nn.Module
        if bilinear:
            self.up = nn.Upsample(scale_factor=2, mode="bilinear", align_corners=True)
            self.conv = DoubleConv(in_channels, out_channels, in_channels // 2)
        else:
            self.up = nn.ConvTranspose2d(in_channels, in_channels // 2, kernel_size=2, stride=2)
            self.conv = DoubleConv(in_channels, out_channels)

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        return self.conv(torch.cat([skip, self.up(x)], dim=1))


class OutConv(nn.Module):
    """1x1 convolution to the classes."""

    def __init__(self, in_channels: int, classes: int) -> None:
        super().__init__()
        self.conv = nn.Conv2d(in_channels, classes, kernel_size=1)

    def forward(self, x: Tensor) -> Tensor:
        return self.conv(x)


class UNet(nn.Module):
    """U-Net (Ronneberger et al., 2015, arXiv:1505.04597) with batch norm and "same" convolutions.

    At the defaults of `UNetConfig` this is the network of milesial/Pytorch-UNet (31.0 M parameters), and the
    state dict carries its key names, so its checkpoints load directly.

    Args:
        config: the architecture.
        checkpointing: which blocks drop their inner activations and compute them again in the backward pass,
            for the same gradients in less memory and more time: "none", "encoder" or "all" (Chen et al., 2016,
            arXiv:1604.06174). It is an attribute and may change between two steps.
    """

    def __init__(self, config: UNetConfig, checkpointing: str = "none") -> None:
        super().__init__()
        self.config = config
        self.checkpointing = checkpointing
        bilinear = config.up == "bilinear"
        widths = [config.base_channels << level for level in range(config.depth + 1)]
        factor = 2 if bilinear else 1
        self.inc = DoubleConv(config.in_channels, widths[0])
        for level in range(1, config.depth + 1):
            last = level == config.depth
            self.add_module(f"down{level}", Down(widths[level - 1], widths[level] // (factor if last else 1)))
        for step, level in enumerate(range(config.depth, 0, -1), start=1):
            out = widths[level - 1] // (factor if level > 1 else 1)
            self.add_module(f"up{step}", Up(widths[level], out, bilinear))
        self.outc = OutConv(widths[0], config.classes)

    def forward(self, x: Tensor) -> Tensor:
        """Logits of an image.

        Args:
            x: (N, C, H, W); H and W are multiples of `config.multiple`.

        Returns:
            (N, classes, H, W).

        Raises:
            ValueError: a side is not such a multiple (the graph holds no padding: `pad_image` does it before).
        """
        multiple = self.config.multiple
        if not torch.compiler.is_compiling() and (x.shape[-2] % multiple or x.shape[-1] % multiple):
            raise ValueError(f"height and width must be multiples of {multiple}, not {tuple(x.shape[-2:])}")
        encoder, decoder = self.checkpointing in ("encoder", "all"), self.checkpointing == "all"
        skips = [self._block(encoder, self.inc, x)]
        for level in range(1, self.config.depth + 1):
            skips.append(self._block(encoder, self.get_submodule(f"down{level}"), skips[-1]))
        y = skips.pop()
        for step in range(1, self.config.depth + 1):
            y = self._block(decoder, self.get_submodule(f"up{step}"), y, skips.pop())
        return self.outc(y)

    def _block(self, drop: bool, block: nn.Module, *inputs: Tensor) -> Tensor:
        if not (drop and self.training and torch.is_grad_enabled()):
            return block(*inputs)
        # Not reentrant: that form cuts the gradient wherever no input asks for one, as the image does.
        if torch.compiler.is_compiling():  # a compiled graph records the statistics once, and takes no such contexts
            return cast("Tensor", checkpoint(block, *inputs, use_reentrant=False))
        contexts = functools.partial(_contexts, block)
        return cast("Tensor", checkpoint(block, *inputs, use_reentrant=False, context_fn=contexts))


def _contexts(block: nn.Module) -> tuple[AbstractContextManager[None], AbstractContextManager[None]]:
    """In which a block is computed for the first and for the second time."""
    return contextlib.nullcontext(), _frozen_statistics(block)


@contextlib.contextmanager
def _frozen_statistics(block: nn.Module) -> Iterator[None]:
    """Batch norm sees every batch once: the second computation normalises likewise but records nothing."""
    norms = [module for module in block.modules() if isinstance(module, nn.BatchNorm2d)]
    before = [(norm.momentum, norm.num_batches_tracked) for norm in norms]
    for norm in norms:
        norm.momentum, norm.num_batches_tracked = 0.0, None
    try:
        yield
    finally:
        for norm, (momentum, count) in zip(norms, before, strict=True):
            norm.momentum, norm.num_batches_tracked = momentum, count


def _foreign(origin: str, keys: list[str]) -> str:
    shown = ", ".join(str(key) for key in keys[:3]) + (", ..." if len(keys) > 3 else "")
    return (
        f"{origin} is not a checkpoint of this U-Net (unexpected or missing: {shown or 'everything'}): "
        "give one of unet-edge or of milesial/Pytorch-UNet"
    )
