"""`Segmenter`: image in, mask out, whatever the backend."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from .backend import Backend, load_backend
from .errors import BackendError, InputError
from .files import atomic_path
from .image import as_image, read_image, to_uint8
from .mask import mask_image, overlay, side_by_side
from .spec import ModelSpec
from .tiling import run_tiled
from .transform import pad_image, postprocess, preprocess, probabilities

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from PIL import Image

__all__ = ["Segmentation", "Segmenter"]

_LOSSLESS = (".png", ".tif", ".tiff", ".bmp")


@dataclass(frozen=True)
class Segmentation:
    """The result for one image.

    Attributes:
        image: (H, W[, C]) as it was read.
        output: (K, h, w) of the network, without padding, at the network's scale.
        labels: (H, W) uint8, an index into `spec.classes`.
        spec: the model's.
    """

    image: NDArray[np.generic]
    output: NDArray[np.float32]
    labels: NDArray[np.uint8]
    spec: ModelSpec

    @property
    def mask(self) -> Image.Image:
        """The mask with the data set's own values or colours.

        Raises:
            BackendError: the network returned NaN.
        """
        # Every comparison with NaN is false: the mask would be all background, and look like an answer.
        if np.isnan(self.output).any():
            raise BackendError(
                "the network returned NaN: its weights are damaged, or overflowed; train or export it again"
            )
        return mask_image(self.labels, self.spec)

    @property
    def overlay(self) -> Image.Image:
        """The image with the classes tinted."""
        return overlay(self.image, self.labels, self.spec)

    @property
    def probabilities(self) -> NDArray[np.float32]:
        """(classes, H, W) in [0, 1]."""
        return probabilities(self.output, self.spec, self.labels.shape)

    def panel(self) -> Image.Image:
        """Image, mask in the class colours, and overlay, side by side."""
        black = np.zeros_like(to_uint8(self.image))
        opaque = self.spec.replace(background=None)
        return side_by_side(
            overlay(self.image, self.labels, self.spec, opacity=0),
            overlay(black, self.labels, opaque, opacity=1),
            self.overlay,
        )

    def save(self, path: Path | str) -> None:
        """Write the mask, atomically; the suffix chooses the format."""
        save_picture(self.mask, path)


class Segmenter:
    """A model with everything around it: read, preprocess, run, postprocess.

    Args:
        backend: an open model.
        threshold: overrides the spec's threshold of a two-class model.

    Raises:
        InputError: a threshold for a model with more classes, or outside 0..1.
    """

    def __init__(self, backend: Backend, threshold: float | None = None) -> None:
        if threshold is not None and not backend.spec.is_binary:
            raise InputError(
                f"a threshold needs a two-class model; {backend.path} has {len(backend.spec.classes)} classes"
            )
        if threshold is not None and not 0 < threshold < 1:
            raise InputError(f"the threshold must lie between 0 and 1, not {threshold}")
        if threshold is not None and backend.spec.head == "classmap":
            raise InputError(f"{backend.path} returns a class map, already decided: export it with --head logits")
        self.backend = backend
        self.spec = backend.spec
        self.threshold = threshold

    @classmethod
    def open(
        cls, path: Path | str, backend: str | None = None, threshold: float | None = None, **options: Any
    ) -> Segmenter:
        """Open a model file; arguments and errors are those of `load_backend`."""
        return cls(load_backend(path, backend, **options), threshold)

    def segment(self, image: Path | str | NDArray[np.generic]) -> Segmentation:
        """Segment one image, given as a file or as an array like `read_image` returns.

        Raises:
            InputError: the image cannot be read, or the array is no image.
            BackendError: the runtime failed.
        """
        pixels = read_image(image) if isinstance(image, str | Path) else as_image(np.asarray(image))
        output = self.run(preprocess(pixels, self.spec))
        labels = postprocess(output, self.spec, (pixels.shape[0], pixels.shape[1]), self.threshold)
        return Segmentation(pixels, output, labels, self.spec)

    def run(self, x: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run one prepared image of any size: pad or tile it, run, crop.

        Args:
            x: (C, h, w) as `preprocess` returns.

        Returns:
            (K, h, w).
        """
        height, width = x.shape[1:]
        fixed = self.input_size(height, width)
        if fixed and self.spec.head != "classmap" and (height > fixed[0] or width > fixed[1]):
            x = pad_image(x, (max(height, fixed[0]), max(width, fixed[1])), self.spec.padding)
            return run_tiled(x, fixed, lambda tile: self.backend.run(tile[None])[0])[:, :height, :width]
        if fixed and (height > fixed[0] or width > fixed[1]):
            raise InputError(
                f"the image is {height}x{width} at the network's scale, this class-map model takes "
                f"{fixed[0]}x{fixed[1]}: "
                "export with --head logits (tiles are blended) or with a larger --size"
            )
        x = pad_image(x, fixed or padded_size((height, width), self.spec.multiple), self.spec.padding)
        return self.backend.run(x[None])[0][:, :height, :width]

    def input_size(self, height: int, width: int) -> tuple[int, int] | None:
        """Of a graph's fixed sizes the smallest that holds the image, else the largest; None where any is taken."""
        sizes = sorted(self.spec.input_sizes, key=lambda size: size[0] * size[1])
        holding = [size for size in sizes if size[0] >= height and size[1] >= width]
        return (holding or sizes[-1:])[0] if sizes else self.spec.input_size


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """(height, width) rounded up to multiples of `multiple`."""
    return -(-size[0] // multiple) * multiple, -(-size[1] // multiple) * multiple


def save_picture(picture: Image.Image, path: Path | str) -> None:
    """Write a picture atomically; the suffix chooses the format.

    Raises:
        InputError: a format that would alter a mask, or cannot hold it.
    """
    path = Path(path)
    if path.suffix.lower() not in _LOSSLESS:
        raise InputError(f"{path}: masks are kept exactly by {', '.join(_LOSSLESS)} only: choose .png")
    try:
        with atomic_path(path) as temporary:
            picture.save(temporary)
    except (ValueError, OSError) as error:
        raise InputError(f"{path}: cannot be written ({error})") from None
