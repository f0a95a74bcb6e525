"""What is compared: models, each with its own way of treating images, and the images."""

from __future__ import annotations

import abc
import functools
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.backend import Backend, backend_for
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of, size_of
from unet_edge_runtime.image import read_image
from unet_edge_runtime.segmenter import Segmenter, padded_size
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import postprocess, preprocess, probabilities, scaled_size

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Model", "Output", "Sample", "Side", "backend_here", "samples_of"]

OPTIONS = {"torch": ("scale",), "coreml": ("compute_units",)}  # backend -> the options that `Model.open` hands on


@dataclass(frozen=True)
class Sample:
    """An image to compare on.

    Attributes:
        name: for people; the file's name.
        image: the file, or None where only saved outputs know it.
        mask: the file of its true mask, or None.
        known_sha256: of a file that is not here.
    """

    name: str
    image: Path | None = None
    mask: Path | None = None
    known_sha256: str = ""

    @functools.cached_property
    def sha256(self) -> str:
        """SHA-256 of the image's file. Raises `InputError` where it cannot be read."""
        if self.image is None:
            return self.known_sha256
        try:
            return sha256_of(self.image)
        except OSError as error:
            raise InputError(f"{self.image}: cannot be read ({error.strerror or error})") from None

    def pixels(self) -> NDArray[np.generic]:
        """The image as `read_image` returns it; the last one is kept for the next model. Raises `InputError`."""
        if self.image is None:
            raise InputError(f"{self.name}: the image itself is needed: add --images")
        return _read_once(self.image)


def samples_of(images: Iterable[Path], masks: Iterable[Path] | None = None) -> list[Sample]:
    """A sample for each image file, with the mask at the same place in `masks` where they are given."""
    files = list(images)
    paths = [None] * len(files) if masks is None else list(masks)
    return [Sample(image.name, image, mask) for image, mask in zip(files, paths, strict=True)]


@functools.lru_cache(maxsize=1)
def _read_once(path: Path) -> NDArray[np.generic]:
    return read_image(path)


@dataclass(frozen=True)
class Output:
    """What a model returned for an image.

    Attributes:
        values: (K, h, w) float32 at the network's scale, without padding.
        size: (height, width) of the image.
    """

    values: NDArray[np.float32]
    size: tuple[int, int]


class Side(abc.ABC):
    """One side of a comparison: outputs for images, and the spec by which they are to be read.

    Attributes:
        name: for people; the model's file name.
        spec: the model's, with the threshold and the input size that it ran with.
        model: what runs here; None for saved outputs.
    """

    name: str
    spec: ModelSpec
    model: Model | None = None

    @abc.abstractmethod
    def output(self, sample: Sample) -> Output:
        """The output for an image.

        Raises:
            InputError: the image cannot be read, or there is no output of it.
            BackendError: the runtime failed.
        """

    @abc.abstractmethod
    def facts(self) -> dict[str, Any]:
        """What this side is, as plain data: model, sha256, backend, precision, what it proves and more."""

    def like(self, spec: ModelSpec) -> Side:
        """This side, padding and tiling as a model of `spec` does where it can; by default it cannot."""
        return self

    def ran_otherwise(self, size: tuple[int, int]) -> bool:
        """Whether `like` changed how an image of this (height, width) is run."""
        return False

    def close(self) -> None:  # noqa: B027 - most sides write nothing
        """Finish what `output` began to write."""

    def labels(self, output: Output) -> NDArray[np.uint8]:
        """Labels (H, W) at the image's size."""
        return postprocess(output.values, self.spec, output.size)


class Model(Side):
    """A model that runs here.

    Args:
        segmenter: the open model.

    Attributes:
        segmenter: as given.
        path: the model's file.
    """

    def __init__(self, segmenter: Segmenter) -> None:
        self.segmenter, self.path, self.name = segmenter, segmenter.backend.path, segmenter.backend.path.name
        self.model = self
        self.spec = segmenter.spec.replace(threshold=segmenter.threshold or segmenter.spec.threshold)
        self._views: dict[tuple[Any, ...], Model] = {}
        self._base = self

    @classmethod
    def open(cls, path: Path, **options: Any) -> Model:
        """Open a file with the backend that this machine has for it; errors are those of `load_backend`.

        Args:
            path: a checkpoint, .onnx or .mlpackage.
            options: of backends; each gets those that it takes.
        """
        name = backend_here(path)
        taken = {key: value for key, value in options.items() if key in OPTIONS.get(name, ()) and value is not None}
        return cls(Segmenter.open(path, name, **taken))

    def output(self, sample: Sample) -> Output:
        """Run the image through the model's own preprocessing."""
        pixels = sample.pixels()
        return self.run(preprocess(pixels, self.spec), (pixels.shape[0], pixels.shape[1]))

    def run(self, x: NDArray[np.float32], size: tuple[int, int]) -> Output:
        """Run network input (C, h, w) made from an image of `size`."""
        return Output(self.segmenter.run(x), size)

    def like(self, spec: ModelSpec) -> Model:
        """The same model run at the fixed input sizes of `spec`, if it takes any size; tiles blended as its head is."""
        own, sizes = self._base.spec, spec.input_sizes or ((spec.input_size,) if spec.input_size else ())
        misfit = any(side % own.multiple for size in sizes for side in size)
        if own.input_size is not None or not sizes or misfit or own.head == "classmap":
            return self
        head = spec.head if spec.head == "probabilities" and spec.outputs == own.outputs else own.head
        if (sizes, head) not in self._base._views:
            fixed = own.replace(input_size=spec.input_size, input_sizes=spec.input_sizes, head=head)
            self._base._views[sizes, head] = self._base.treating(fixed)
        return self._base._views[sizes, head]

    def treating(self, spec: ModelSpec) -> Model:
        """The same model, bringing images into the network as `spec` says."""
        backend = self.segmenter.backend
        view = Model(Segmenter(backend if spec.head == backend.spec.head else _AsProbabilities(backend)))
        view.spec = view.segmenter.spec = spec
        view._base = self._base
        return view

    def ran_otherwise(self, size: tuple[int, int]) -> bool:
        """Whether the padding differs from what the model does by itself."""
        if self._base is self:
            return False
        natural = padded_size(scaled_size(size, self.spec.scale), self.spec.multiple)
        return natural not in (self.spec.input_sizes or (self.spec.input_size,))

    @functools.cached_property
    def _identity(self) -> dict[str, Any]:
        return {"model": self.name, "sha256": sha256_of(self.path), "bytes": size_of(self.path)}

    def facts(self) -> dict[str, Any]:
        """What ran, and what that proves."""
        backend, spec = self.segmenter.backend, self.spec
        return {
            **self._base._identity,
            "backend": backend.name,
            "compute_units": getattr(backend, "compute_units", None),
            "precision": spec.precision,
            "head": spec.head,
            "input_size": spec.input_size,
            "proves": backend.proves,
            "saved": False,
        }


class _AsProbabilities(Backend):
    """A backend of logits that returns probabilities: a mean of either over two tiles is not the same."""

    def __init__(self, inner: Backend) -> None:
        self.name, self.proves = inner.name, inner.proves  # type: ignore[misc]
        self.inner, self.path, self.spec = inner, inner.path, inner.spec.replace(head="probabilities")

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        spec, size = self.inner.spec, (batch.shape[2], batch.shape[3])
        return np.stack([probabilities(logits, spec, size)[-spec.outputs :] for logits in self.inner.run(batch)])


def backend_here(path: Path) -> str:
    """The backend for a file on this machine: a Core ML package away from macOS runs in the reference interpreter."""
    name = backend_for(path)
    return "coreml-ref" if name == "coreml" and sys.platform != "darwin" else name
