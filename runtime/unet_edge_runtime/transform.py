"""Pixels become network input, logits become labels: the one place where both happen."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image

from .errors import InputError
from .image import MAX_PIXELS, with_channels

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .spec import ModelSpec

__all__ = [
    "bring_to_scale",
    "normalise",
    "pad_image",
    "postprocess",
    "preprocess",
    "probabilities",
    "scaled_size",
]

_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def preprocess(image: NDArray[np.generic], spec: ModelSpec) -> NDArray[np.float32]:
    """Turn an image into network input, not yet padded.

    Scaling to [0, 1] follows the array's type alone (uint8 / 255, uint16 / 65535, float as it is), so a dark
    image stays dark.

    Args:
        image: (H, W) or (H, W, C) as `read_image` returns.
        spec: channels, scale, resample filter and normalisation are used.

    Returns:
        (C, h, w) float32, normally in [0, 1].
    """
    return normalise(bring_to_scale(image, spec), spec)


def bring_to_scale(image: NDArray[np.generic], spec: ModelSpec) -> NDArray[np.generic]:
    """The first half of `preprocess`: the spec's channels and scale, still in the image's own type.

    Args:
        image: (H, W) or (H, W, C) as `read_image` returns.
        spec: channels, scale and resample filter are used.

    Returns:
        (h, w), or (h, w, C) for more than one channel, of the image's type.

    Raises:
        InputError: the scale makes the image too large.
    """
    image = with_channels(image, spec.channels)
    size = scaled_size(image.shape[:2], spec.scale)
    if size[0] * size[1] > MAX_PIXELS:
        raise InputError(f"an image of {image.shape[:2]} becomes {size} at scale {spec.scale}: cut it into pieces")
    return image if size == image.shape[:2] else _resize(image, size, spec.resample)


def normalise(image: NDArray[np.generic], spec: ModelSpec) -> NDArray[np.float32]:
    """The second half of `preprocess`: planes of float32, normally in [0, 1], then mean and standard deviation.

    Args:
        image: (h, w) or (h, w, C) as `bring_to_scale` returns.
        spec: mean and std are used.

    Returns:
        (C, h, w) float32.
    """
    planes = np.ascontiguousarray(np.moveaxis(image[:, :, None] if image.ndim == 2 else image, 2, 0))
    x = planes.astype(np.float32)
    if image.dtype == np.uint8:
        x /= 255
    elif image.dtype == np.uint16:
        x /= 65535
    if spec.mean:
        x -= np.asarray(spec.mean, np.float32)[:, None, None]
    if spec.std:
        x /= np.asarray(spec.std, np.float32)[:, None, None]
    return x


def scaled_size(size: tuple[int, ...], scale: float) -> tuple[int, int]:
    """(height, width) after scaling both by `scale`, rounded down and at least 1."""
    return max(1, int(size[0] * scale)), max(1, int(size[1] * scale))


def pad_image(x: NDArray[np.float32], size: tuple[int, int], padding: str) -> NDArray[np.float32]:
    """Fill a (..., H, W) array up to `size`, below and to the right; never crops."""
    below, right = size[0] - x.shape[-2], size[1] - x.shape[-1]
    if not (below or right):
        return x
    mode = {"reflect": "reflect", "edge": "edge", "zero": "constant"}[padding]
    return np.pad(x, [(0, 0)] * (x.ndim - 2) + [(0, below), (0, right)], mode=mode)  # type: ignore[call-overload]


def postprocess(
    output: NDArray[np.float32], spec: ModelSpec, size: tuple[int, int], threshold: float | None = None
) -> NDArray[np.uint8]:
    """Turn a model's output into labels at the image's own size.

    Logits are interpolated bilinearly (half-pixel centres) before the decision, so edges stay smooth: what
    `torch.nn.functional.interpolate` does, except where the mask is smaller than the output (a scale above 1);
    there Pillow averages all the pixels that fall into one.

    Args:
        output: (K, h, w), already without padding; (1, h, w) labels where `spec.head` is "classmap".
        spec: head, outputs and threshold are used.
        size: (height, width) wanted.
        threshold: probability from which class 1 of a two-class model is chosen; the spec's by default.

    Returns:
        (height, width) labels, 0 .. classes - 1.
    """
    threshold = spec.threshold if threshold is None else threshold
    if spec.head == "classmap":
        return _resize_plane(output[0], size, Image.Resampling.NEAREST).astype(np.uint8)
    if spec.is_binary:
        margin = output[-1] if spec.outputs == 1 else _binary_plane(output, spec.head)
        limit = threshold if spec.head == "probabilities" else math.log(threshold / (1 - threshold))
        return (_resize_plane(margin, size) > limit).astype(np.uint8)
    best = _resize_plane(output[0], size).copy()  # it may be a view of `output`, or read-only
    labels = np.zeros(size, np.uint8)
    for label in range(1, len(output)):
        plane = _resize_plane(output[label], size)
        better = plane > best
        labels[better] = label
        np.maximum(best, plane, out=best)
    return labels


def probabilities(output: NDArray[np.float32], spec: ModelSpec, size: tuple[int, int]) -> NDArray[np.float32]:
    """Class probabilities at the image's own size.

    Args:
        output: (K, h, w) as for `postprocess`.
        spec: head and outputs are used.
        size: (height, width) wanted.

    Returns:
        (classes, height, width) in [0, 1], summing to 1 over the classes.

    Raises:
        InputError: the model returns a class map, which has none.
    """
    if spec.head == "classmap":
        raise InputError("this model returns a class map without probabilities: export it with --head logits")
    planes = np.stack([_resize_plane(plane, size) for plane in output])
    if spec.outputs == 1:
        # The sigmoid by way of tanh, which does not overflow.
        positive = planes[0] if spec.head == "probabilities" else 0.5 + 0.5 * np.tanh(planes[0] / 2)
        return np.stack([1 - positive, positive])
    if spec.head == "logits":
        planes = np.exp(planes - planes.max(axis=0))
    return planes / planes.sum(axis=0)


def _resize(image: NDArray[np.generic], size: tuple[int, int], resample: str) -> NDArray[np.generic]:
    method = _RESAMPLING[resample]
    if image.dtype == np.uint8:
        if image.ndim == 3 and image.shape[2] == 4:
            # Not as RGBA: Pillow would weigh the colours by the fourth channel, and blacken them where it is 0.
            picture = Image.frombytes("CMYK", (image.shape[1], image.shape[0]), image.tobytes())
        else:
            picture = Image.fromarray(image)
        return np.asarray(picture.resize((size[1], size[0]), method))
    planes = [image] if image.ndim == 2 else list(np.moveaxis(image, 2, 0))
    resized = np.stack([_resize_plane(plane, size, method) for plane in planes], axis=-1)
    if image.dtype == np.uint16:
        resized = np.clip(resized, 0, 65535).round().astype(np.uint16)
    return resized[:, :, 0] if image.ndim == 2 else resized


def _resize_plane(
    plane: NDArray[np.generic], size: tuple[int, int], method: Image.Resampling = Image.Resampling.BILINEAR
) -> NDArray[np.float32]:
    values: NDArray[np.float32] = np.ascontiguousarray(plane, dtype=np.float32)
    if values.shape == size:
        return values
    return np.asarray(Image.fromarray(values).resize((size[1], size[0]), method))


def _binary_plane(output: NDArray[np.float32], head: str) -> NDArray[np.float32]:
    return output[1] if head == "probabilities" else output[1] - output[0]
