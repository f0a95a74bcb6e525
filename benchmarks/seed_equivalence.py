"""How far our masks are from the original's where image sizes are no multiples of the network's.

    python benchmarks/seed_equivalence.py run/best.pth --images photos --limit 32

milesial/Pytorch-UNet fills up feature maps inside the decoder wherever a size was odd on the way down; we fill up the
image before the network, so that the exported graph is free of padding. At multiples of 2**depth both are the same
computation. Elsewhere this prints the share of labels that differ, for each way of filling up. The network's weights
are taken from any checkpoint, written in milesial's layout and read back, so that its loading is measured too.
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
import torch
from PIL import Image
from torch.nn import functional as F

from unet_edge.checkpoint import read_checkpoint
from unet_edge.model import UNet
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.image import image_files
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import PADDINGS


def seed_forward(model: UNet, x: torch.Tensor) -> torch.Tensor:
    """The network with the original's padding: each upsampled map is padded to its skip connection's size."""
    depth = model.config.depth
    skips = [model.inc(x)]
    for level in range(1, depth + 1):
        skips.append(model.get_submodule(f"down{level}")(skips[-1]))
    y = skips.pop()
    for step in range(1, depth + 1):
        up = model.get_submodule(f"up{step}")
        skip, y = skips.pop(), up.get_submodule("up")(y)
        rows, columns = skip.shape[2] - y.shape[2], skip.shape[3] - y.shape[3]
        y = F.pad(y, [columns // 2, columns - columns // 2, rows // 2, rows - rows // 2])
        y = up.get_submodule("conv")(torch.cat([skip, y], dim=1))
    return model.outc(y)


def seed_predict(model: UNet, path: Path, scale: float) -> np.ndarray:
    """The original's prediction for one image: bicubic resize, /255, network, bilinear logits, argmax."""
    image = Image.open(path)
    size = int(image.width * scale), int(image.height * scale)
    pixels = np.asarray(image.resize(size, Image.Resampling.BICUBIC))
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    with torch.inference_mode():
        logits = seed_forward(model, torch.from_numpy(planes / 255.0).float()[None])
        logits = F.interpolate(logits, (image.height, image.width), mode="bilinear")
        labels = logits.argmax(dim=1) if model.config.classes > 1 else torch.sigmoid(logits[:, 0]) > 0.5
    return labels[0].numpy().astype(np.uint8)


def main() -> None:
    """Compare on every image and print one line for each way of filling up."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=32, help="images, spread over the folder")
    parser.add_argument("--scale", type=float, help="by default the checkpoint's own")
    options = parser.parse_args()
    checkpoint = read_checkpoint(options.checkpoint)
    scale = options.scale or checkpoint.spec.scale
    values = [info.value for info in checkpoint.spec.classes]
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "milesial.pth"
        torch.save({**checkpoint.weights, "mask_values": values}, path)
        loaded = read_checkpoint(path, scale)
    model, files = loaded.build(), image_files(options.images)
    files = files[:: max(1, len(files) // options.limit)][: options.limit]
    expected = [seed_predict(model, file, scale) for file in files]
    with Image.open(files[0]) as first:
        size = f"{int(first.height * scale)}x{int(first.width * scale)}"
    print(f"{len(files)} images, {size} at scale {scale:g}; multiples of {loaded.spec.multiple} need no filling up")
    for padding in PADDINGS:
        segmenter = Segmenter(TorchBackend.from_model(model, loaded.spec.replace(padding=padding)))
        shares = [
            float((segmenter.segment(file).labels != truth).mean()) for file, truth in zip(files, expected, strict=True)
        ]
        print(f"{padding:8} labels that differ: mean {np.mean(shares):.4%}, worst image {max(shares):.4%}")


if __name__ == "__main__":
    main()
