"""`export_model`: the road from a checkpoint to an artefact that has been compared with PyTorch."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_edge.checkpoint import Checkpoint, read_checkpoint
from unet_edge.model import UNet
from unet_edge_runtime.backend import load_backend
from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.files import atomic_path, sha256_of
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import HEADS, ModelSpec

from .images import choose_images
from .parity import TOLERANCES, Tolerance, check_agreement
from .sizes import input_size
from .to_coreml import TARGETS, write_coreml
from .to_onnx import OPSET, write_onnx

__all__ = ["FORMATS", "NOT_EXECUTED", "ExportResult", "export_model", "export_sibling"]

FORMATS = {"onnx": ".onnx", "coreml": ".mlpackage"}
"""Format -> suffix of its artefacts."""

NOT_EXECUTED = "converted, not executed on this machine (Core ML runs on macOS only)"

_PRECISIONS = {"onnx": ("fp32",), "coreml": ("fp16", "fp32")}  # the default first
_PACKAGES = {"onnx": ("torch", "onnx", "onnxscript"), "coreml": ("torch", "coremltools")}


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        path: the artefact.
        format: onnx or coreml.
        size: of the file, or of all files of the package, in bytes.
        agreement: with PyTorch, or None where it could not be executed.
        tolerance: what was allowed, scaled to the logits' magnitude.
        executed: whether the artefact was run and compared.
        spec: what is embedded in it.
        images: what it was compared on; empty when not executed.
        note: what a person should know besides; may be empty.
    """

    path: Path
    format: str
    size: int
    agreement: Agreement | None
    tolerance: Tolerance
    executed: bool
    spec: ModelSpec
    images: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.size,
            "executed": self.executed,
            "agreement": self.agreement.to_dict() if self.agreement else None,
            "tolerance": {
                "max_logit_difference": self.tolerance.max_logit_difference,
                "equal_labels": self.tolerance.equal_labels,
            },
            "images": self.images,
            "note": self.note,
            "spec": self.spec.to_dict(),
        }


def export_model(
    checkpoint: Path | str,
    format: str = "onnx",
    output: Path | str | None = None,
    *,
    size: tuple[int, int] | None = None,
    dynamic: bool = False,
    precision: str | None = None,
    head: str = "logits",
    images: list[Path] | None = None,
    scale: float | None = None,
    target: str = "macOS14",
    report: Callable[[str], None] = lambda message: None,
) -> ExportResult:
    """Convert a checkpoint, compare the artefact with PyTorch, and only then give it its name.

    Args:
        checkpoint: of unet-edge or of milesial/Pytorch-UNet.
        format: onnx or coreml.
        output: the artefact; by default beside the checkpoint, under its stem. One that exists is replaced at the
            very end, so a failed export leaves it as it was.
        size: (height, width) of the network's input, multiples of the spec's `multiple`; by default the size that
            training used.
        dynamic: leave batch, height and width open (ONNX only).
        precision: fp32, or fp16 (Core ML, its default).
        head: logits, probabilities or classmap.
        images: what to compare on; by default validation images of the run, as far as they can be reached.
        scale: image scale of a checkpoint that does not know its own.
        target: oldest macOS for Core ML: macOS13, macOS14 or macOS15.
        report: is told what is being done.

    Raises:
        InputError: options that do not fit each other, the format or the checkpoint; an unreadable image.
        ModelFileError: the checkpoint is missing, damaged or foreign.
        MissingExtraError: a converter is not installed.
        AgreementError: the artefact computes something else than PyTorch; nothing is left of it.
    """
    checkpoint = Path(checkpoint)
    precision = _check_options(format, precision, head, target)
    path = _check_output(checkpoint, format, output)
    report(f"reading {checkpoint}")
    loaded = read_checkpoint(checkpoint, scale)
    fixed, note = input_size(loaded.spec, format, size, dynamic, str(checkpoint))
    spec = _artefact_spec(loaded, format, head=head, output_name=head, input_size=fixed, precision=precision)
    model = loaded.build()
    with atomic_path(path) as temporary:
        report(f"converting to {path.name}")
        if format == "onnx":
            write_onnx(model, spec, temporary)
        else:
            write_coreml(model, spec, temporary, target)
        result = _verified(checkpoint, model, spec, format, temporary, images, report)
    return ExportResult(path=path, spec=spec, note=note, format=format, size=_bytes(path), **result)


def export_sibling(
    checkpoint: Path | str, scale: float | None = None, report: Callable[[str], None] = lambda message: None
) -> tuple[Path, bool]:
    """The ONNX file beside a checkpoint, exported again if it is missing or was made from other weights.

    Args:
        checkpoint: a checkpoint.
        scale: image scale of a checkpoint that does not know its own.
        report: is told what is being done.

    Returns:
        The file, and whether it was exported just now.

    Raises:
        ModelFileError: a file of that name is there that unet-edge did not make; and as `export_model`.
    """
    checkpoint = Path(checkpoint)
    wanted = read_checkpoint(checkpoint, scale).spec
    sibling = checkpoint.with_suffix(FORMATS["onnx"])
    if sibling.exists():
        try:
            spec = load_backend(sibling, "onnx").spec
        except ModelFileError as error:
            raise ModelFileError(f"{error}: the export of {checkpoint} belongs there, so move it away") from None
        if spec.provenance.get("checkpoint_sha256") == sha256_of(checkpoint) and spec.scale == wanted.scale:
            return sibling, False
    return export_model(checkpoint, "onnx", sibling, scale=scale, report=report).path, True


def _check_options(format: str, precision: str | None, head: str, target: str) -> str:
    """Check what needs no file; returns the precision."""
    if format not in FORMATS:
        raise InputError(f"format must be one of {', '.join(FORMATS)}, not {format!r}")
    if head not in HEADS:
        raise InputError(f"head must be one of {', '.join(HEADS)}, not {head!r}")
    if target not in TARGETS:
        raise InputError(f"target must be one of {', '.join(TARGETS)}, not {target!r}")
    allowed = _PRECISIONS[format]
    if precision is not None and precision not in allowed:
        raise InputError(f"{format} is exported in {' or '.join(allowed)}, not {precision}: choose another --precision")
    return precision or allowed[0]


def _check_output(checkpoint: Path, format: str, output: Path | str | None) -> Path:
    suffix = FORMATS[format]
    path = checkpoint.with_suffix(suffix) if output is None else Path(output)
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: {format} artefacts end in {suffix}: choose another output")
    package = format == "coreml"
    if path.exists() and (path.is_dir() != package or (package and not (path / "Manifest.json").is_file())):
        raise InputError(f"{path} is there and is no {format} artefact: move it away or choose another output")
    return path


def _artefact_spec(loaded: Checkpoint, format: str, **changes: Any) -> ModelSpec:
    provenance = {
        **loaded.spec.provenance,
        "checkpoint": loaded.path.name,
        "checkpoint_sha256": sha256_of(loaded.path),
        "format": f"ONNX opset {OPSET}" if format == "onnx" else "Core ML ML Program",
        "exported_with": {name: _version(name) for name in ("unet-edge", *_PACKAGES[format])},
    }
    return loaded.spec.replace(provenance=provenance, **changes)


def _version(package: str) -> str:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return "unknown"


def _verified(
    checkpoint: Path,
    model: UNet,
    spec: ModelSpec,
    format: str,
    artefact: Path,
    given: list[Path] | None,
    report: Callable[[str], None],
) -> dict[str, Any]:
    tolerance = TOLERANCES[spec.precision]
    if format == "coreml" and sys.platform != "darwin":
        return {"agreement": None, "tolerance": tolerance, "executed": False}
    images = choose_images(checkpoint, spec, given)
    report(f"comparing with PyTorch on {images.origin}")
    candidate = load_backend(artefact, format)
    if candidate.spec != spec:
        raise ModelFileError(f"{artefact}: the spec came back changed: this is a defect, please report it")
    agreement, applied = check_agreement(model, candidate, images, tolerance)
    return {"agreement": agreement, "tolerance": applied, "executed": True, "images": images.origin}


def _bytes(path: Path) -> int:
    files = path.rglob("*") if path.is_dir() else [path]
    return sum(file.stat().st_size for file in files if file.is_file())
