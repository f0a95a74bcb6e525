"""Random changes of what pixels measure, not of where they are."""

from __future__ import annotations

import math
import random
from dataclasses import dataclass

import torch
from torch import Tensor

__all__ = ["Intensity"]


@dataclass(frozen=True)
class Intensity:
    """How far pixel values may be changed; all numbers are the largest change, either way, unless said otherwise.

    Attributes:
        probability: share of the items that are changed at all.
        brightness: added to all pixels, as a share of the image's range.
        contrast: share by which differences from the mean grow or shrink.
        gamma: factor on the exponent, as its natural logarithm.
        saturation: share by which colours grow or shrink.
        hue: turn of the colours, in degrees.
        gain: share by which each channel is multiplied on its own.
        noise: largest standard deviation of Gaussian noise, as a share of the image's range.
        blur: largest standard deviation of a Gaussian blur, in pixels.
        seldom: share of the changed items that also get noise, and likewise blur.
    """

    probability: float
    brightness: float
    contrast: float
    gamma: float
    saturation: float = 0.0
    hue: float = 0.0
    gain: float = 0.0
    noise: float = 0.0
    blur: float = 0.0
    seldom: float = 0.0

    def change(self, image: Tensor, choice: random.Random) -> Tensor:
        """Change one image within the range from its own darkest to its own brightest value.

        So a dark image of 16 bits, or one of floats outside 0..1, changes as much as a photo does. Hue, saturation
        and gain change only images of three channels or more, and of these the first three (not alpha).

        Args:
            image: (C, h, w) float32.
            choice: drawn from.

        Returns:
            (C, h, w).
        """
        colours = image[:3][None]
        low, high = (float(value) for value in torch.aminmax(colours))
        if not high > low:
            return image
        x = self._toned((colours - low) / (high - low), choice)
        if x.shape[1] == 3 and (self.saturation or self.hue or self.gain):
            x = self._coloured(x, choice)
        if self.blur and choice.random() < self.seldom:
            x = self._blurred(x, choice)
        if self.noise and choice.random() < self.seldom:
            generator = torch.Generator().manual_seed(choice.getrandbits(63))
            x = x + torch.randn(x.shape, generator=generator) * choice.uniform(0, self.noise)
        x = x.clamp(0, 1)[0] * (high - low) + low
        return torch.cat([x, image[3:]]) if len(image) > 3 else x

    def _toned(self, x: Tensor, choice: random.Random) -> Tensor:
        """Brightness, contrast and gamma as kornia has them, in place: that takes half the time."""
        from kornia.color import rgb_to_grayscale

        x.add_(choice.uniform(-self.brightness, self.brightness)).clamp_(0, 1)
        means = x.mean((2, 3), keepdim=True)
        grey = rgb_to_grayscale(means) if x.shape[1] == 3 else means.mean()
        x.lerp_(grey, -choice.uniform(-self.contrast, self.contrast)).clamp_(0, 1)
        return x.pow_(math.exp(choice.uniform(-self.gamma, self.gamma)))

    def _coloured(self, x: Tensor, choice: random.Random) -> Tensor:
        """Hue and saturation as a turn and a stretch of the two colour axes of YUV: linear, so quick."""
        from kornia.color import rgb_to_yuv, yuv_to_rgb

        angle = math.radians(choice.uniform(-self.hue, self.hue))
        stretch = 1 + choice.uniform(-self.saturation, self.saturation)
        gains = [1 + choice.uniform(-self.gain, self.gain) for _ in range(3)]
        luma, u, v = rgb_to_yuv(x).unbind(1)
        cos, sin = stretch * math.cos(angle), stretch * math.sin(angle)
        turned = torch.stack([luma, cos * u - sin * v, sin * u + cos * v], dim=1)
        return yuv_to_rgb(turned) * torch.tensor(gains)[:, None, None]

    def _blurred(self, x: Tensor, choice: random.Random) -> Tensor:
        from kornia.filters import gaussian_blur2d

        sigma = choice.uniform(0.2, self.blur)
        reach = 2 * math.ceil(2 * self.blur) + 1  # two standard deviations on both sides hold 95 %
        return gaussian_blur2d(x, (reach, reach), (sigma, sigma), border_type="replicate")
