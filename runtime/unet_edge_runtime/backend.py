"""Backends: what runs a model, and how one is found."""

from __future__ import annotations

import abc
import importlib.metadata
import inspect
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from .errors import BackendError, MissingExtraError, ModelFileError
from .pretrained import find_model, pretrained_names
from .spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Backend", "backend_for", "backend_names", "entry_points", "load_backend"]

ENTRY_POINTS = "unet_edge.backends"

# As in pyproject.toml; strings, so that nothing of a higher floor is imported here.
_OURS = {
    "onnx": "unet_edge_runtime.onnx_backend:OnnxBackend",
    "coreml": "unet_edge_runtime.coreml_backend:CoreMLBackend",
    "torch": "unet_edge.torch_backend:TorchBackend",
    "coreml-ref": "unet_edge_export.reference_backend:CoreMLReferenceBackend",
}

_BY_SUFFIX = {
    ".onnx": "onnx",
    ".mlpackage": "coreml",
    ".pth": "torch",
    ".pt": "torch",
    ".th": "torch",
    ".ckpt": "torch",
}
_EXTRAS = {"torch": "train", "coreml": "export", "coreml-ref": "export"}


class Backend(abc.ABC):
    """A loaded model: (N, C, H, W) float32 in, the graph's output out.

    Subclasses open and check the file in `__init__`, set `spec`, and write `_run`.

    Attributes:
        name: what `--backend` calls it.
        proves: what its results stand for where that is not the runtime itself; else empty.
        spec: how the model's images and masks are to be treated.
        path: the model's file.
    """

    name: ClassVar[str]
    proves: ClassVar[str] = ""
    spec: ModelSpec
    path: Path

    def run(self, batch: NDArray[np.float32]) -> NDArray[np.float32]:
        """Run a batch of prepared images.

        Args:
            batch: (N, C, H, W) float32, as `preprocess` and `pad_image` make it; H and W are the graph's fixed
                size, or multiples of `spec.multiple`.

        Returns:
            (N, K, H, W) float32: logits or probabilities, or (N, 1, H, W) labels for the head "classmap".

        Raises:
            ValueError: shape or type of the batch do not fit.
            BackendError: the runtime failed.
        """
        self._check_input(batch)
        output = np.asarray(self._run(np.ascontiguousarray(batch)))
        if output.ndim == 3 and self.spec.head == "classmap":
            output = output[:, None]
        channels = 1 if self.spec.head == "classmap" else self.spec.outputs
        expected = (len(batch), channels, *batch.shape[2:])
        if output.shape != expected:
            raise BackendError(f"{self.path}: {self.name} returned shape {output.shape}, expected {expected}")
        if self.spec.label_values:
            output = _labels(output, self.spec.label_values)
        return output.astype(np.float32, copy=False)

    @abc.abstractmethod
    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        """Run a checked, contiguous batch."""

    def _check_input(self, batch: NDArray[np.float32]) -> None:
        spec = self.spec
        if batch.dtype != np.float32 or batch.ndim != 4 or batch.shape[1] != spec.channels or not batch.size:
            raise ValueError(f"expected (N, {spec.channels}, H, W) float32, got {batch.shape} {batch.dtype}")
        height, width = batch.shape[2:]
        sizes = spec.input_sizes or (spec.input_size,)
        if spec.input_size and (height, width) not in sizes:
            listed = " or ".join(map(str, sizes))
            raise ValueError(f"{self.path} takes images of {listed} only, got {(height, width)}")
        if height % spec.multiple or width % spec.multiple:
            raise ValueError(f"height and width must be multiples of {spec.multiple}, got {(height, width)}")


def _labels(picture: NDArray[np.generic], values: tuple[int, ...]) -> NDArray[np.uint8]:
    """Labels of a picture of grey values; of a value between two, the nearest one's."""
    distance = np.abs(np.arange(256)[:, None] - np.asarray(values))
    table: NDArray[np.uint8] = distance.argmin(axis=1).astype(np.uint8)
    return table[np.rint(picture).clip(0, 255).astype(np.uint8)]


def backend_names() -> list[str]:
    """Names of all installed backends, sorted."""
    return sorted({point.name for point in entry_points()})


def entry_points() -> list[importlib.metadata.EntryPoint]:
    """The installed backends, and ours by name where nothing was installed, as in a copy on PYTHONPATH."""
    installed = list(importlib.metadata.entry_points(group=ENTRY_POINTS))
    names = {point.name for point in installed}
    ours = [importlib.metadata.EntryPoint(name, where, ENTRY_POINTS) for name, where in _OURS.items()]
    return [*installed, *(point for point in ours if point.name not in names)]


def backend_for(path: Path | str) -> str:
    """The name of the backend that a file's kind asks for.

    Raises:
        ModelFileError: missing file, or a suffix that no backend claims.
    """
    path = Path(path)
    if not path.exists():
        raise ModelFileError(f"{path}: no such model file")
    name = _BY_SUFFIX.get(path.suffix.lower())
    if name is None:
        if (path / "best.pth").exists():
            raise ModelFileError(f"{path} is the folder of a run: give {path / 'best.pth'}")
        known = ", ".join(sorted(_BY_SUFFIX))
        raise ModelFileError(f"{path}: unknown kind of model; expected one of {known}, or name a --backend")
    return name


def load_backend(path: Path | str, name: str | None = None, **options: Any) -> Backend:
    """Open a model.

    Args:
        path: .onnx, .mlpackage or a checkpoint, or the name of a pretrained model.
        name: the backend; by default the file's kind decides.
        options: what the backend's class takes besides the path, such as `threads`.

    Raises:
        ModelFileError: the file is missing, damaged, or was not made by unet-edge.
        BackendError: the backend is unknown, cannot run here, or does not take an option.
        MissingExtraError: a package that it needs is not installed.
    """
    if str(path) in pretrained_names():
        path = find_model(path)
    name = name or backend_for(path)
    for point in entry_points():
        if point.name == name:
            try:
                backend_class = point.load()
            except ModuleNotFoundError as error:
                package = (error.name or "a package").partition(".")[0]
                if name in _EXTRAS:
                    raise MissingExtraError(package, _EXTRAS[name], f"backend {name}") from None
                raise BackendError(f"backend {name} needs {package}: pip install {package}") from None
            except (ImportError, AttributeError) as error:
                raise BackendError(f"backend {name} cannot be loaded ({error}): install it again") from None
            taken = inspect.signature(backend_class).parameters
            takes_any = any(parameter.kind is parameter.VAR_KEYWORD for parameter in taken.values())
            for option in options:
                if option not in taken and not takes_any:
                    raise BackendError(f"backend {name} has no option {option}: leave it out for {path}")
            backend: Backend = backend_class(Path(path), **options)
            return backend
    raise BackendError(f"unknown backend {name!r}: installed are {', '.join(backend_names()) or 'none'}")
