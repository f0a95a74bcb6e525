"""Image files as arrays, in their own precision."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from PIL import Image, ImageOps, UnidentifiedImageError

from .errors import InputError

if TYPE_CHECKING:
    from numpy.typing import NDArray


__all__ = ["as_image", "decode", "image_files", "is_image_file", "read_image", "read_npy", "to_uint8", "with_channels"]

MAX_FLOAT = 16.0  # standardised images stay below; 0..255 or 0..65535 saved as float do not
MAX_PIXELS = 1 << 28  # 268 million: 16384 x 16384; a bound on what a hostile header can make us allocate

# Pillow modes that already are what a network wants; every other one is converted to the nearest of them.
_PLAIN_MODES = {"L", "RGB", "RGBA", "F", "I", "I;16", "I;16B", "I;16L"}
_CONVERSIONS = {"1": "L", "LA": "L", "La": "L", "RGBa": "RGBA"}
_UNREADABLE = {"PDF", "PALM", "BUFR", "GRIB", "HDF5", "MPEG"}  # Pillow knows the suffix but decodes no pixel


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
        InputError: missing, unreadable, truncated, too large, of a type whose range is not defined, or in colours
            of 16 bits, which only a .npy file keeps.
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
        if array.size and np.abs(array).max() > MAX_FLOAT:
            raise InputError(
                f"{origin}: float values up to {np.abs(array).max():g}; floats are taken as they are, in [0, 1]: "
                "divide them by their range, or save uint8 or uint16"
            )
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
        InputError: missing, not an image, truncated, too large, a document of several pages, or in colours of 16 bits.
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
    except Image.DecompressionBombError:
        raise InputError(f"{path}: more than 179 million pixels, which Pillow refuses: cut it into pieces") from None
    except UnidentifiedImageError:
        raise InputError(f"{path}: not an image that Pillow can read") from None
    # Pillow's plug-ins raise whatever a damaged file makes them stumble over.
    except Exception as error:
        raise InputError(f"{path}: cannot be read ({_reason(error)}): replace or repair the file") from None


def to_uint8(image: NDArray[np.generic]) -> NDArray[np.uint8]:
    """(H, W, 3) uint8 for looking at, of any image that `read_image` returns."""
    image = with_channels(image, 3)
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
    if _is_cut(image):
        raise InputError(
            f"{path}: has channels of more than 8 bits, which Pillow would cut to 8: "
            "save it with 8 bits, or an image as uint16 .npy, which keeps all"
        )
    image.load()
    if image.mode == "I" and image.format in ("PPM", "PNG"):  # 16-bit files that Pillow widens (PNG: before 10.3)
        return ImageOps.exif_transpose(image).convert("I;16")
    return ImageOps.exif_transpose(image)


def _is_cut(image: Image.Image) -> bool:
    """Whether decoding would keep only the upper byte of each number: Pillow has no colours of 16 bits."""
    if image.mode.startswith(("I", "F")):
        return False
    if image.format == "TIFF":
        return max(getattr(image, "tag_v2", {}).get(258, (8,))) > 8  # BitsPerSample, of each channel
    tiles = getattr(image, "tile", [])
    if image.format == "PPM":
        return any(tile[0] != "raw" and tile[3][1] > 255 for tile in tiles)  # the largest value
    return any(";16B" in str(tile) or tile[0] == "SGI16" for tile in tiles)


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


def with_channels(image: NDArray[np.generic], channels: int) -> NDArray[np.generic]:
    """The same image with 1, 3 or 4 channels: grey is repeated, colour weighed, alpha left out or opaque."""
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
