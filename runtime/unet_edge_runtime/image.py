"""Images in, label maps out: the one place where pixels become network input and logits become labels."""

from __future__ import annotations

import math
import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .spec import ModelSpec

__all__ = [
    "as_image",
    "bring_to_scale",
    "decode",
    "image_files",
    "is_image_file",
    "normalise",
    "pad_image",
    "postprocess",
    "preprocess",
    "probabilities",
    "read_image",
    "scaled_size",
    "to_uint8",
]

MAX_PIXELS = 1 << 28  # 268 million: 16384 x 16384; a bound on what a hostile header can make us allocate

# Pillow modes that already are what a network wants; every other one is converted to the nearest of them.
_PLAIN_MODES = {"L", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L"}
_CONVERSIONS = {"1": "L", "LA": "L", "La": "L", "RGBa": "RGBA"}
_UNREADABLE = {"PDF", "PALM", "BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow knows the suffix but decodes no pixel
_RESAMPLING = {
    "nearest": Image.Resampling.NEAREST,
    "box": Image.Resampling.BOX,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def is_image_file(path: Path) -> bool:
    """Whether the name looks like an image: any suffix that Pillow reads, or .npy; hidden files are not."""
    if path.name.startswith("."):
        return False
    suffix = path.suffix.lower()
    return suffix == ".npy" or Image.registered_extensions().get(suffix, "PDF") not in _UNREADABLE


def image_files(folder: Path) -> list[Path]:
    """The image files directly in `folder`, sorted by name.

    Raises:
        InputError: `folder` is not a folder, or holds no image.
    """
    if not folder.is_dir():
        raise InputError(f"{folder} is not a folder: give the folder that holds the files")
    files = sorted(path for path in folder.iterdir() if is_image_file(path) and path.is_file())
    if not files:
        raise InputError(f"{folder} holds no image file (formats: whatever Pillow reads, and .npy)")
    return files


def read_image(path: Path | str) -> NDArray[np.generic]:
    """Read an image in its own precision.

    Palettes become colours, EXIF orientation is applied, of an animation the first frame is taken.

    Returns:
        (H, W) or (H, W, C) with C 3 or 4: uint8, uint16 or float32.

    Raises:
        InputError: missing, unreadable, truncated, too large, or of a type whose range is not defined.
    """
    path = Path(path)
    return as_image(read_npy(path) if path.suffix.lower() == ".npy" else _read_pillow(path), path)


def as_image(array: NDArray[np.generic], origin: Path | str = "the image") -> NDArray[np.generic]:
    """An array as `read_image` would return it from a file: one type of pixel, one layout.

    Args:
        array: (H, W) or (H, W, C) with C 1 to 4 (of two the second, alpha, is left out): bool, uint8, uint16 or float.
        origin: the file it came from, for messages.

    Raises:
        InputError: another shape, nothing in it, NaN, or a type whose range is not defined.
    """
    if array.ndim == 3 and array.shape[2] in (1, 2):
        array = array[:, :, 0]
    if not array.size or (array.ndim != 2 and (array.ndim != 3 or array.shape[2] not in (3, 4))):
        raise InputError(f"{origin}: shape {array.shape}; expected (H, W) or (H, W, C) with 1, 3 or 4 channels")
    if array.dtype.kind == "f":
        with np.errstate(over="ignore"):
            array = np.ascontiguousarray(array, dtype=np.float32)
        if not np.isfinite(array).all():
            raise InputError(f"{origin}: holds NaN or infinite values: repair the file")
        return array
    if array.dtype == np.bool_:
        return array.astype(np.uint8) * 255
    if array.dtype.kind != "u" or array.dtype.itemsize > 2:
        raise InputError(
            f"{origin}: type {array.dtype} has no defined range: save it as uint8, uint16, or float in [0, 1]"
        )
    return array.astype(array.dtype.newbyteorder("="), copy=False)


def decode(path: Path) -> Image.Image:
    """Open and fully decode a file with Pillow: upright, in the mode it is stored in.

    Raises:
        InputError: missing, not an image, truncated, too large, or a document of several pages.
    """
    try:
        # A stream, not a name: Pillow maps a raw TIFF by its name, and scrambles one that lies on its side.
        with path.open("rb") as stream, warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # our own bound follows
            return _decoded(Image.open(stream), path)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    except IsADirectoryError:
        raise InputError(f"{path}: is a folder, not an image") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    # Pillow's plug-ins raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}): replace or repair the file") from None


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
    image = _with_channels(image, spec.channels)
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


def to_uint8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 for looking at, of any image that `read_image` returns."""
    image = _with_channels(image, 3)
    if image.dtype == np.uint8:
        return image.astype(np.uint8, copy=False)
    unit = image.astype(np.float32) / (65535 if image.dtype == np.uint16 else 1)
    return (np.clip(unit, 0, 1) * 255).round().astype(np.uint8)


def read_npy(path: Path) -> NDArray[np.generic]:
    """Read a .npy file as it stands, without unpickling objects.

    Raises:
        InputError: missing, damaged, too large, or not one array.
    """
    try:
        # Mapped first: a header that promises more than the file holds fails here, before anything is allocated.
        with np.errstate(over="ignore"):
            array = np.lib.format.open_memmap(path, mode="r")
        if array.size > MAX_PIXELS * 4:
            raise InputError(f"{path}: shape {array.shape} is too large: cut it into pieces")
        return np.array(array)
    except InputError:
        raise
    except FileNotFoundError:
        raise InputError(f"{path}: no such file") from None
    # numpy parses the header as Python text, which fails in as many ways.
    except Exception as error:
        raise InputError(f"{path}: not a readable .npy array ({_reason(error)})") from None


def _decoded(image: Image.Image, path: Path) -> Image.Image:
    if image.width * image.height > MAX_PIXELS:
        raise InputError(f"{path}: {image.width}x{image.height} is too large: cut it into pieces")
    if image.format == "TIFF" and getattr(image, "n_frames", 1) > 1:
        raise InputError(f"{path}: has {getattr(image, 'n_frames', 1)} pages: save each page as a file")
    image.load()
    if image.mode == "I" and image.format in ("PPM", "PNG"):  # 16-bit files that Pillow widens (PNG: before 10.3)
        return ImageOps.exif_transpose(image).convert("I;16")
    return ImageOps.exif_transpose(image)


def _read_pillow(path: Path) -> NDArray[np.generic]:
    image = decode(path)
    try:
        if image.mode in ("P", "PA"):
            image = image.convert("RGBA" if image.mode == "PA" or "transparency" in image.info else "RGB")
        elif image.mode not in _PLAIN_MODES:
            image = image.convert(_CONVERSIONS.get(image.mode, "RGB"))
    except (OSError, ValueError, SyntaxError) as error:
        raise InputError(f"{path}: cannot be converted ({error})") from None
    return np.asarray(image)


def _reason(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0]


def _with_channels(image: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    have = 1 if image.ndim == 2 else image.shape[2]
    if have == channels:
        return image
    if channels == 1:
        # ITU-R 601 luma; alpha is left out.
        if image.dtype == np.uint8:
            return np.asarray(Image.fromarray(np.ascontiguousarray(image[:, :, :3])).convert("L"))
        luma = image[:, :, :3].astype(np.float64) @ np.array([0.299, 0.587, 0.114])
        return luma.astype(np.float32) if image.dtype.kind == "f" else (luma + 0.5).astype(image.dtype)
    if have == 1:
        image = np.repeat(image[:, :, None], 3, axis=2)
    if channels == 3:
        return np.ascontiguousarray(image[:, :, :3])
    opaque = 1.0 if image.dtype.kind == "f" else np.iinfo(image.dtype).max  # type: ignore[type-var]
    return np.concatenate([image, np.full((*image.shape[:2], 1), opaque, image.dtype)], axis=2)


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
