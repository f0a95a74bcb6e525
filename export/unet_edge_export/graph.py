"""What is exported: the U-Net with batch norm folded away, and a head."""

from __future__ import annotations

import copy
import math

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unet_edge.model import DoubleConv, UNet
from unet_edge_runtime.spec import ModelSpec

__all__ = ["ExportGraph", "fold_batch_norm", "trace"]


class ExportGraph(nn.Module):
    """A copy of a U-Net for deployment: convolutions, ReLU, pooling, upsampling, concatenation and a head.

    Normalisation, padding and cropping stay outside (the runtime does them for every backend alike), so no shape
    is computed in the graph.

    Args:
        model: the trained network; it is copied, not changed.
        spec: `head`, `outputs` and `threshold` are used.
        label_type: integer type of a class map: uint8, or int32 where the format has no smaller one.
    """

    def __init__(self, model: UNet, spec: ModelSpec, label_type: torch.dtype = torch.uint8) -> None:
        super().__init__()
        self.net = fold_batch_norm(model)
        self.head = spec.head
        self.outputs = spec.outputs
        self.label_type = label_type
        self.limit = math.log(spec.threshold / (1 - spec.threshold))
        if spec.head == "classmap" and spec.outputs == 2:
            # softmax(y)[1] > t is y[1] - limit > y[0]: in the bias, the threshold costs the graph nothing.
            bias = self.net.outc.conv.bias
            assert bias is not None
            with torch.no_grad():
                bias[1] -= self.limit
        self.eval()

    def forward(self, image: Tensor) -> Tensor:
        """The head's output of prepared images.

        Args:
            image: (N, C, H, W) float; H and W are multiples of 2**depth.

        Returns:
            (N, K, H, W) logits or probabilities, or (N, 1, H, W) integer labels for the head "classmap".
        """
        logits: Tensor = self.net(image)
        if self.head == "logits":
            return logits
        if self.head == "probabilities":
            return torch.sigmoid(logits) if self.outputs == 1 else torch.softmax(logits, dim=1)
        labels = logits > self.limit if self.outputs == 1 else torch.argmax(logits, dim=1, keepdim=True)
        return labels.to(self.label_type)


def fold_batch_norm(model: UNet) -> UNet:
    """A copy in evaluation mode whose convolutions have taken in the batch norm that follows them.

    In inference batch norm is one multiplication and one addition a channel: w' = w g / sqrt(v + e),
    b' = beta - m g / sqrt(v + e), with running mean m and variance v (`torch.nn.utils.fusion`).
    """
    folded = copy.deepcopy(model).cpu().eval()
    folded.checkpointing = False
    for block in folded.modules():
        if isinstance(block, DoubleConv):
            first, norm1, _, second, norm2, _ = block.double_conv
            assert isinstance(first, nn.Conv2d)
            assert isinstance(second, nn.Conv2d)
            assert isinstance(norm1, nn.BatchNorm2d)
            assert isinstance(norm2, nn.BatchNorm2d)
            block.double_conv = nn.Sequential(
                fuse_conv_bn_eval(first, norm1), nn.ReLU(), fuse_conv_bn_eval(second, norm2), nn.ReLU()
            )
    return folded.to(memory_format=torch.contiguous_format).requires_grad_(False)  # type: ignore[call-overload]


def trace(graph: ExportGraph, channels: int, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """`torch.export` of the graph at one fixed size, for one image."""
    with torch.no_grad():
        return torch.export.export(graph, (torch.zeros(1, channels, *size),))
