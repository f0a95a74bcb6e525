"""What milesial/Pytorch-UNet does, written again from its published behaviour: its prediction and its training step.

    python milesial.py CHECKPOINT FOLDER PHOTO...

That project is GPL-3.0 and this one MIT, so none of its code is here. What would only slow it down is left out: its
imports of torchvision, matplotlib and wandb, and its logging.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

from seed_equivalence import seed_forward
from unet_edge.checkpoint import read_checkpoint
from unet_edge.model import UNet

__all__ = ["Training", "load", "predict"]

EPSILON = 1e-6


def load(checkpoint: Path) -> tuple[UNet, float, list[int]]:
    """The network for prediction, its scale, and the mask values."""
    loaded = read_checkpoint(checkpoint)
    return loaded.build(), loaded.spec.scale, [int(info.value) for info in loaded.spec.classes]  # type: ignore[arg-type]


@torch.no_grad()
def predict(model: UNet, scale: float, values: Sequence[int], photo: Path, target: Path) -> None:
    """A photo's mask as a file: bicubic resize, eager network, logits brought to full size, argmax over them."""
    image = Image.open(photo)
    pixels = _scaled(image, scale, Image.Resampling.BICUBIC)
    x = torch.from_numpy(_normalised(pixels)).unsqueeze(0).to(dtype=torch.float32)
    logits = F.interpolate(seed_forward(model, x), (image.height, image.width), mode="bilinear")
    labels = logits.argmax(dim=1)[0].long().squeeze().numpy()
    mask = np.zeros(labels.shape, dtype=bool if list(values) == [0, 1] else np.uint8)
    for label, value in enumerate(values):
        mask[labels == label] = value
    Image.fromarray(mask).save(target)


class Training:
    """Its training: RMSprop with its values, channels_last, cross-entropy plus Dice over all classes at once,
    gradients clipped at 1, images in random order, and a process for each core that reads ahead.

    Args:
        checkpoint: the network, its first weights and its scale.
        images: folder of images.
        masks: folder of masks.
        names: stems of the images.
        suffix: what a mask's stem has more.
        batch: images a step.
        device: cpu, cuda or mps.
        amp: its --amp: autocast with the device's own type, and a gradient scaler on CUDA.
    """

    def __init__(
        self,
        checkpoint: Path,
        images: Path,
        masks: Path,
        names: Sequence[str],
        suffix: str,
        batch: int = 1,
        device: str = "cpu",
        amp: bool = False,
    ) -> None:
        loaded = read_checkpoint(checkpoint)
        values = [int(info.value) for info in loaded.spec.classes]  # type: ignore[arg-type]
        self.device, self.amp = torch.device(device), amp
        self.model = loaded.build().train().to(self.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self.loader = DataLoader(
            _Pairs(images, masks, names, suffix, loaded.spec.scale, values),
            batch_size=batch,
            shuffle=True,
            num_workers=os.cpu_count() or 1,
            pin_memory=self.device.type == "cuda",  # elsewhere it asks for it too, and torch leaves it
        )
        self.optimizer = torch.optim.RMSprop(
            self.model.parameters(), lr=1e-5, weight_decay=1e-8, momentum=0.999, foreach=True
        )
        self.scaler = torch.amp.GradScaler("cuda", enabled=amp and self.device.type == "cuda")

    def epoch(self) -> Iterator[tuple[int, float]]:
        """Every image once; yields each step's number of images and loss."""
        for x, truth in self.loader:
            x = x.to(self.device, torch.float32, memory_format=torch.channels_last)
            yield len(x), self._step(x, truth.to(self.device, torch.long))

    def _step(self, x: Tensor, truth: Tensor) -> float:
        with torch.autocast("cpu" if self.device.type == "mps" else self.device.type, enabled=self.amp):
            logits = seed_forward(self.model, x)
            one_hot = F.one_hot(truth, self.model.config.classes).permute(0, 3, 1, 2).float()
            loss = F.cross_entropy(logits, truth) + _dice_loss(F.softmax(logits, dim=1).float(), one_hot)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), 1.0)
        self.scaler.step(self.optimizer)
        self.scaler.update()
        return loss.item()


def _dice_loss(probabilities: Tensor, truth: Tensor) -> Tensor:
    overlap = 2 * (probabilities * truth).sum()
    total = probabilities.sum() + truth.sum()
    return 1 - (overlap + EPSILON) / (torch.where(total == 0, overlap, total) + EPSILON)


class _Pairs(Dataset[tuple[Tensor, Tensor]]):
    """Pairs looked up by name, read and scaled each time that they are asked for."""

    def __init__(
        self, images: Path, masks: Path, names: Sequence[str], suffix: str, scale: float, values: Sequence[int]
    ) -> None:
        self.images, self.masks, self.names, self.suffix = images, masks, list(names), suffix
        self.scale, self.values = scale, values

    def __len__(self) -> int:
        return len(self.names)

    def __getitem__(self, index: int) -> tuple[Tensor, Tensor]:
        name = self.names[index]
        (mask_file,) = self.masks.glob(f"{name}{self.suffix}.*")
        (image_file,) = self.images.glob(f"{name}.*")
        mask = _scaled(Image.open(mask_file), self.scale, Image.Resampling.NEAREST)
        image = _scaled(Image.open(image_file), self.scale, Image.Resampling.BICUBIC)
        labels = np.zeros(mask.shape, dtype=np.int64)
        for label, value in enumerate(self.values):
            labels[mask == value] = label
        return torch.as_tensor(_normalised(image)).float().contiguous(), torch.as_tensor(labels).long().contiguous()


def _scaled(image: Image.Image, scale: float, method: Image.Resampling) -> NDArray[np.uint8]:
    return np.asarray(image.resize((int(image.width * scale), int(image.height * scale)), method))


def _normalised(pixels: NDArray[np.uint8]) -> NDArray[np.generic]:
    planes = pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)
    return planes / 255.0 if (planes > 1).any() else planes


def main(checkpoint: Path, folder: Path, photos: Sequence[Path]) -> None:
    """Write `<stem>_OUT.png` of each photo into a folder."""
    model, scale, values = load(checkpoint)
    for photo in photos:
        predict(model, scale, values, photo, folder / f"{photo.stem}_OUT.png")


if __name__ == "__main__":
    main(Path(sys.argv[1]), Path(sys.argv[2]), [Path(name) for name in sys.argv[3:]])
