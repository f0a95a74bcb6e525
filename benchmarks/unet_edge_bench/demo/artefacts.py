"""A checkpoint and what was exported from it: found, or made when missing or out of date."""

from __future__ import annotations

import importlib.metadata
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_edge.checkpoint import read_checkpoint
from unet_edge_export import FORMATS, export_model
from unet_edge_export.to_coreml import describe_package
from unet_edge_runtime.backend import backend_names, load_backend
from unet_edge_runtime.errors import BackendError, ModelFileError
from unet_edge_runtime.files import sha256_of, size_of
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import ModelSpec

__all__ = [
    "BACKENDS",
    "UNTIMED",
    "Artefact",
    "backend_options",
    "checkpoint_artefact",
    "exported",
    "open_backends",
    "title_of",
]

BACKENDS = {"torch": "checkpoint", "onnx": "onnx", "coreml-ref": "coreml", "coreml": "coreml"}
"""Backend -> the artefact that it runs; the first is the reference for all."""

_TITLES = {
    "torch": "PyTorch",
    "onnx": "ONNX Runtime",
    "coreml-ref": "Core ML (reference)",
    "coreml": "Core ML",
}

UNTIMED = ("coreml-ref",)
"""Proves what a file computes; how long that takes says nothing about the runtime that it stands for."""

MUST_RUN = ("torch", "onnx", "coreml-ref")  # everywhere; the others may refuse a machine


@dataclass(frozen=True)
class Artefact:
    """A model file, or a package, which is a folder.

    Attributes:
        path: where it lies.
        format: checkpoint, onnx or coreml.
        spec: what it says about itself.
        reused: whether it was there already.
    """

    path: Path
    format: str
    spec: ModelSpec
    reused: bool = True

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: name, format, size, digest, precision, input size."""
        return {
            "name": self.path.name,
            "format": self.format,
            "kind": self.spec.provenance.get("format", "PyTorch checkpoint, with the state of training"),
            "bytes": size_of(self.path),
            "sha256": sha256_of(self.path),
            "precision": self.spec.precision,
            "input_size": self.spec.input_size,
        }


def checkpoint_artefact(path: Path) -> Artefact:
    """A checkpoint of unet-edge. Raises `ModelFileError` where it is damaged."""
    return Artefact(path, "checkpoint", read_checkpoint(path).spec)


def exported(checkpoint: Path, format: str, images: list[Path], report: Callable[[str], None]) -> Artefact:
    """The artefact beside a checkpoint, exported again unless these weights and this version made it.

    Args:
        checkpoint: what to export.
        format: onnx or coreml.
        images: what to compare on.
        report: is told what is being done.

    Raises:
        InputError, ModelFileError, MissingExtraError, AgreementError: as `export_model`.
    """
    path = checkpoint.with_suffix(FORMATS[format])
    spec = _spec_of(path, format)
    if spec is not None and _is_current(spec, checkpoint):
        return Artefact(path, format, spec)
    result = export_model(checkpoint, format, path, images=images, report=report)
    return Artefact(path, format, result.spec, reused=False)


def open_backends(artefacts: Mapping[str, Artefact], threads: int) -> tuple[dict[str, Segmenter], dict[str, str]]:
    """Open the artefacts with every backend that runs here.

    Args:
        artefacts: by format.
        threads: for the backends that can be told.

    Returns:
        Open models by backend, the reference first; and why the others do not run here.

    Raises:
        BackendError, ModelFileError: one that runs everywhere did not.
    """
    opened: dict[str, Segmenter] = {}
    refused: dict[str, str] = {}
    for name, format in BACKENDS.items():
        if format not in artefacts or name not in backend_names():
            continue
        path = artefacts[format].path
        try:
            opened[name] = Segmenter.open(path, name, **backend_options(name, threads))
        except BackendError as error:
            if name in MUST_RUN:
                raise
            refused[name] = str(error).removeprefix(f"{path}: ").partition(";")[0]
    return opened, refused


def title_of(backend: str) -> str:
    """What people call a backend."""
    return _TITLES.get(backend, backend)


def backend_options(name: str, threads: int) -> dict[str, Any]:
    """What a backend is told besides the path: the CPU, because other devices round differently, and the threads."""
    options: dict[str, dict[str, Any]] = {
        "torch": {"device": "cpu", "threads": threads},
        "onnx": {"threads": threads},
    }
    return options.get(name, {})


def _spec_of(path: Path, format: str) -> ModelSpec | None:
    """The spec inside an artefact, or None where there is no readable one."""
    try:
        if format == "coreml":
            return ModelSpec.from_dict(describe_package(path)["spec"], str(path))
        return load_backend(path, format).spec
    except ModelFileError:
        return None


def _is_current(spec: ModelSpec, checkpoint: Path) -> bool:
    made_by = spec.provenance.get("exported_with", {}).get("unet-edge")
    same_weights = spec.provenance.get("checkpoint_sha256") == sha256_of(checkpoint)
    return same_weights and made_by == importlib.metadata.version("unet-edge")
