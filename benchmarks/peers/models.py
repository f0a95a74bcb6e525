"""The checkpoint as it is measured: at a scale that gives the wanted input size, and wider if asked."""

from __future__ import annotations

import re
from dataclasses import replace
from pathlib import Path

from environments import ROOT, fingerprint
from peer_backend import spec_file
from roster import Model
from torch import Tensor

from unet_edge.checkpoint import Checkpoint, read_checkpoint, save_checkpoint
from unet_edge.model import UNet
from unet_edge_export.exporter import export_model
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.segmenter import padded_size
from unet_edge_runtime.transform import scaled_size

__all__ = ["make_model", "widened"]


def make_model(wanted: str, checkpoint: Path, photo: tuple[int, int], images: list[Path], cache: Path) -> Model:
    """Export one of the sizes that were asked for, unless it is in the cache.

    Args:
        wanted: "HxW", or "WIDTH@HxW" for a network widened to that many base channels.
        checkpoint: the trained one.
        photo: (height, width) of the photos.
        images: for the export's own check.
        cache: folder of all models.

    Raises:
        InputError: not such a text, or the photos do not become that size at any scale.
    """
    match = re.fullmatch(r"(?:(\d+)@)?(\d+)x(\d+)", wanted)
    if match is None:
        raise InputError(f"{wanted!r} is no size: give HxW or WIDTH@HxW, such as 320x480 or 32@640x960")
    loaded = read_checkpoint(checkpoint)
    size = int(match[2]), int(match[3])
    scale = _scale(size, photo, loaded.spec.multiple)
    network = widened(loaded, int(match[1] or loaded.config.base_channels))
    spec = loaded.spec.replace(scale=scale, training_sizes=(size,))
    name = f"width {network.config.base_channels}, {network.config.up} decoder, {size[0]}x{size[1]}"
    made_of = [checkpoint, Path(__file__), *sorted((ROOT / "export").rglob("*.py")), ROOT / "unet_edge" / "model.py"]
    folder = cache / "models" / f"{wanted.replace('@', '-')}-{fingerprint(made_of)}"
    ours = Model(name, folder / "model.pth", folder / "model.onnx", size, folder)
    if not spec_file(ours.onnx).exists():
        folder.mkdir(parents=True, exist_ok=True)
        save_checkpoint(ours.checkpoint, network, spec, {})
        exported = export_model(ours.checkpoint, "onnx", ours.onnx, size=size, images=images)
        spec_file(ours.onnx).write_text(exported.spec.to_json(), encoding="utf-8")
    return ours


def widened(checkpoint: Checkpoint, base_channels: int) -> UNet:
    """The network with more channels that computes the same: every channel is repeated, and shares its weight.

    It takes the time and memory of any network of that width, and its masks are those of the trained one, so that
    agreement is checked on real logits (the idea is Net2WiderNet's, arXiv:1511.05641).

    Raises:
        InputError: the width is no multiple of the trained one.
    """
    factor, rest = divmod(base_channels, checkpoint.config.base_channels)
    if rest or factor < 1:
        raise InputError(f"width {base_channels} is no multiple of the checkpoint's {checkpoint.config.base_channels}")
    model = UNet(replace(checkpoint.config, base_channels=base_channels))
    model.load_state_dict({name: _wider(name, value, factor) for name, value in checkpoint.weights.items()})
    return model.eval()


def _wider(name: str, value: Tensor, factor: int) -> Tensor:
    first, last = name == "inc.double_conv.0.weight", name.startswith("outc.")
    if value.ndim < 2:
        return value if last or not value.ndim else value.repeat_interleave(factor)
    transposed = name.endswith(".up.weight")  # (inputs, outputs, 2, 2); a convolution has (outputs, inputs, 3, 3)
    outputs, inputs = (1, 0) if transposed else (0, 1)
    if not last:
        value = value.repeat_interleave(factor, dim=outputs)
    return value if first else value.repeat_interleave(factor, dim=inputs) / factor


def _scale(size: tuple[int, int], photo: tuple[int, int], multiple: int) -> float:
    """The scale at which a photo, filled up to the network's multiple, has this size."""
    scale = min(size[0] / photo[0], size[1] / photo[1])
    if padded_size(scaled_size(photo, scale), multiple) != size:
        raise InputError(
            f"photos of {photo[0]}x{photo[1]} become {size[0]}x{size[1]} at no scale: give --sizes of their shape"
        )
    return scale
