"""What is exported: the U-Net with batch norm folded away, and a head."""

from __future__ import annotations

import copy
import math
import re

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from unet_edge.model import DoubleConv, UNet
from unet_edge_runtime.spec import ModelSpec

__all__ = [
    "HEAD_LAYER",
    "PIXEL_SHARE",
    "ExportGraph",
    "fold_batch_norm",
    "fold_pixel_scale",
    "layer_names",
    "operation_name",
    "trace",
]

HEAD_LAYER = "head"
"""What `layer_names` calls the operations that follow the network."""

PIXEL_SHARE = 4.0
"""How much of 1/255 the second convolution takes over; a power of two, so exact (`fold_pixel_scale`)."""

_PLAIN = {"to_copy": "cast", "gt": "greater", "ge": "greater_equal"}  # operation in the program -> what people call it


class ExportGraph(nn.Module):
    """A copy of a U-Net for deployment: convolutions, ReLU, pooling, upsampling, concatenation and a head.

    Normalisation, padding and cropping stay outside (the runtime does them for every backend alike), so no shape
    is computed in the graph.

    Args:
        model: the trained network; it is copied, not changed.
        spec: `head`, `outputs`, `threshold` and `label_values` are used.
        label_type: integer type of a class map: uint8, or int32 where the format has no smaller one.
        pixels: take 8-bit values 0..255 instead of [0, 1]; no operation is added.
        plane: return a class map of one image as (H, W), from two outputs even where the network has one: M1 has no
            cast from a comparison's result to an integer.
    """

    def __init__(
        self,
        model: UNet,
        spec: ModelSpec,
        label_type: torch.dtype = torch.uint8,
        *,
        pixels: bool = False,
        plane: bool = False,
    ) -> None:
        super().__init__()
        self.net = fold_batch_norm(model)
        if pixels:
            fold_pixel_scale(self.net)
        self.head = spec.head
        self.outputs = spec.outputs
        self.label_type = label_type
        self.plane = plane
        self.limit = math.log(spec.threshold / (1 - spec.threshold))
        self.picture = _Picture(spec.label_values) if spec.label_values else None
        if spec.head == "classmap" and self.outputs == 1 and plane and not spec.label_values:
            self.net.outc.conv = _two_outputs(self.net.outc.conv)
            self.outputs = 2
        if spec.head == "classmap" and self.outputs == 2:
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
            (N, K, H, W) logits or probabilities; for the head "classmap" (N, 1, H, W) integer labels, (H, W) of
            one image if `plane`, or, if the spec has `label_values`, these as float.
        """
        logits: Tensor = self.net(image)
        if self.head == "logits":
            return logits
        if self.head == "probabilities":
            return torch.sigmoid(logits) if self.outputs == 1 else torch.softmax(logits, dim=1)
        labels = logits > self.limit if self.outputs == 1 else torch.argmax(logits, dim=1, keepdim=True)
        if self.picture is not None:
            return self.picture(labels)
        labels = labels.to(self.label_type)
        return labels.squeeze((0, 1)) if self.plane else labels


class _Picture(nn.Module):
    """Labels to grey values, without a table look-up, for which the Neural Engine has no operation.

    Args:
        values: the grey value (0..255) of each label.
    """

    def __init__(self, values: tuple[int, ...]) -> None:
        super().__init__()
        first, step = values[0], values[1] - values[0]
        self.first, self.step = float(first), float(step)
        self.is_even = all(value == first + label * step for label, value in enumerate(values))
        # The value is the first one plus all steps up to the label: exact in fp16, whose integers reach 2048.
        self.steps = nn.Conv2d(len(values) - 1, 1, kernel_size=1)
        with torch.no_grad():
            self.steps.weight.copy_(torch.tensor(values).diff().float().view(1, -1, 1, 1))
            self.steps.bias.fill_(self.first)  # type: ignore[union-attr]
        self.labels: Tensor
        self.register_buffer("labels", torch.arange(1, len(values), dtype=torch.int32).view(1, -1, 1, 1))
        self.requires_grad_(False)

    def forward(self, labels: Tensor) -> Tensor:
        """(N, 1, H, W) labels, integer or bool, to float values of the same shape."""
        if not self.is_even:
            return self.steps((labels.to(torch.int32) >= self.labels).float())
        values = labels.float()
        if self.step != 1:
            values = values * self.step
        return values + self.first if self.first else values


def _two_outputs(last: nn.Conv2d) -> nn.Conv2d:
    """A layer of one logit as one of two, the first 0: the larger one is the label."""
    assert last.bias is not None
    wide = nn.Conv2d(last.in_channels, 2, kernel_size=1)
    with torch.no_grad():
        wide.weight.copy_(torch.cat([torch.zeros_like(last.weight), last.weight]))
        wide.bias.copy_(torch.cat([torch.zeros_like(last.bias), last.bias]))  # type: ignore[union-attr]
    return wide.requires_grad_(False)


def fold_batch_norm(model: UNet) -> UNet:
    """A copy in evaluation mode whose convolutions have taken in the batch norm that follows them.

    In inference batch norm is one multiplication and one addition a channel: w' = w g / sqrt(v + e),
    b' = beta - m g / sqrt(v + e), with running mean m and variance v (`torch.nn.utils.fusion`).
    """
    folded = copy.deepcopy(model).cpu().eval()
    folded.checkpointing = "none"
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


def fold_pixel_scale(folded: UNet) -> None:
    """Let a network that `fold_batch_norm` returned take 8-bit values: 1/255 goes into its weights, in place.

    Core ML would scale a picture by a separate fp32 operation, which runs on the CPU (coremltools issue 2213), and
    round the result to fp16, while 0..255 are exact in it.
    The whole of 1/255 in the first convolution would push some of its weights below fp16's normal numbers (6e-5),
    where precision fades and hardware may flush to zero; ReLU passes positive factors on, so the second convolution
    takes over `PIXEL_SHARE` of it. Zero padding stays right, because zero is black on either scale.
    """
    first, _, second, _ = folded.inc.double_conv
    assert isinstance(first, nn.Conv2d)
    assert isinstance(second, nn.Conv2d)
    assert first.bias is not None
    with torch.no_grad():
        first.weight *= PIXEL_SHARE / 255
        first.bias *= PIXEL_SHARE
        second.weight /= PIXEL_SHARE


def trace(graph: ExportGraph, channels: int, size: tuple[int, int]) -> torch.export.ExportedProgram:
    """`torch.export` of the graph at one fixed size, for one image."""
    with torch.no_grad():
        return torch.export.export(graph, (torch.zeros(1, channels, *size),))


def layer_names(program: torch.export.ExportedProgram) -> dict[str, str]:
    """Operation -> layer of the U-Net, such as "up4.conv.double_conv.0"; operations of the head are `HEAD_LAYER`."""
    names = {}
    for node in program.graph.nodes:
        stack = node.meta.get("nn_module_stack") or {}
        if node.op == "call_function":
            path = list(stack.values())[-1][0] if stack else ""
            names[node.name] = path.removeprefix("net.") if path.startswith("net.") else HEAD_LAYER
    return names


def operation_name(graph: ExportGraph, module: str, traced: str) -> str:
    """A readable name of one operation: its layer's, such as "up1.up", or "up1.cat" for what is no layer of its own.

    Args:
        graph: what was exported.
        module: path of the innermost module around the operation, such as "net.up1.up".
        traced: the operation's name in the exported program, such as "cat_1".
    """
    layer = module.removeprefix("net.") if module.startswith("net.") else HEAD_LAYER
    is_leaf = layer != HEAD_LAYER and not any(graph.get_submodule(module).children())
    operation = re.sub(r"_\d+$", "", traced).strip("_").lower()
    return layer if is_leaf else f"{layer}.{_PLAIN.get(operation, operation)}"
