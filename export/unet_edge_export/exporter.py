"""`export_model`: the road from a checkpoint to an artefact that has been compared with PyTorch."""

from __future__ import annotations

import importlib.metadata
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from unet_edge.checkpoint import Checkpoint, read_checkpoint
from unet_edge.model import UNet
from unet_edge_runtime.backend import Backend, load_backend
from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.files import atomic_path, sha256_of, size_of
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import LossTolerance, Tolerance, tolerance_of

from .calibrate import calibration_images
from .compress import COMPRESSIONS
from .each_size import check_each_size
from .images import CheckImages, choose_images
from .options import FORMATS, check_format, check_layers, choose_target, head_changes
from .reference_backend import CoreMLReferenceBackend
from .sizes import Size, input_sizes
from .to_coreml import PackageOptions, write_coreml
from .to_onnx import OPSET, write_onnx

__all__ = ["BY_REFERENCE", "FORMATS", "ExportResult", "export_model", "export_sibling"]


BY_REFERENCE = f"checked with the reference interpreter: it {CoreMLReferenceBackend.proves}"

_PACKAGES = {"onnx": ("torch", "onnx", "onnxscript"), "coreml": ("torch", "coremltools")}


@dataclass(frozen=True)
class ExportResult:
    """What an export made.

    Attributes:
        path: the artefact.
        format: onnx or coreml.
        size: of the file, or of all files of the package, in bytes.
        agreement: with PyTorch.
        tolerance: what was allowed, scaled to the logits' magnitude.
        spec: what is embedded in it.
        images: what it was compared on.
        proof: what the comparison proves where that is not all; empty where the artefact's own runtime was used.
        note: what a person should know besides; may be empty.
    """

    path: Path
    format: str
    size: int
    agreement: Agreement
    tolerance: Tolerance
    spec: ModelSpec
    images: str = ""
    proof: str = ""
    note: str = ""

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "path": str(self.path),
            "format": self.format,
            "bytes": self.size,
            "agreement": self.agreement.to_dict(),
            "tolerance": _tolerance(self.tolerance),
            "images": self.images,
            "proof": self.proof,
            "note": self.note,
            "spec": self.spec.to_dict(),
        }


def export_model(
    checkpoint: Path | str,
    format: str = "onnx",
    output: Path | str | None = None,
    *,
    size: Size | Sequence[Size] | None = None,
    dynamic: bool = False,
    precision: str | None = None,
    fp32_layers: Sequence[str] = (),
    head: str = "logits",
    images: list[Path] | None = None,
    scale: float | None = None,
    target: str | None = None,
    compression: str | None = None,
    calibration: list[Path] | None = None,
    about: Mapping[str, str] | None = None,
    report: Callable[[str], None] = lambda message: None,
) -> ExportResult:
    """Convert a checkpoint, compare the artefact with PyTorch, and only then give it its name.

    Args:
        checkpoint: of unet-edge or of milesial/Pytorch-UNet.
        format: onnx or coreml.
        output: the artefact; by default beside the checkpoint, under its stem. One that exists is replaced at the
            very end, so a failed export leaves it as it was.
        size: (height, width) of the network's input, multiples of the spec's `multiple`; by default the size that
            training used. Several make a Core ML package with one function each, the first the default.
        dynamic: leave batch, height and width open (ONNX only).
        precision: fp32, or for Core ML fp16 (its default) or mixed.
        fp32_layers: layers that stay in fp32 at precision mixed, such as outc or up4.
        head: logits, probabilities or classmap, or for Core ML mask-image.
        images: what to compare on; by default validation images of the run, as far as they can be reached.
        scale: image scale of a checkpoint that does not know its own.
        target: oldest macOS for Core ML: macOS13, macOS14, macOS15 or macOS26; by default macOS14, or what the other
            options need.
        compression: of a Core ML package, one of `COMPRESSIONS`.
        calibration: images for a compression that needs them; by default training images of the run.
        about: author, license, description and model_version to write into the artefact.
        report: is told what is being done.

    Raises:
        InputError: options that do not fit each other, the format or the checkpoint; an unreadable image.
        ModelFileError: the checkpoint is missing, damaged or foreign.
        MissingExtraError: a converter is not installed.
        AgreementError: the artefact computes something else than PyTorch; nothing is left of it.
    """
    checkpoint = Path(checkpoint)
    precision = check_format(format, precision, head, compression, fp32_layers)
    path = _check_output(checkpoint, format, output)
    asked = _sizes(size)
    target, target_note = choose_target(target, len(asked), compression)
    report(f"reading {checkpoint}")
    loaded = read_checkpoint(checkpoint, scale)
    sizes, note = input_sizes(loaded.spec, format, asked, dynamic, str(checkpoint))
    changes: dict[str, Any] = {
        **head_changes(loaded.spec, format, head),
        **_size_changes(sizes),
        "precision": precision,
    }
    chosen = _calibration(compression, checkpoint, loaded.spec.replace(**changes), calibration, report)
    spec = _artefact_spec(loaded, format, {**(about or {}), **_compression(compression, chosen)}, **changes)
    model = loaded.build()
    check_layers(model, fp32_layers)
    with atomic_path(path) as temporary:
        report(f"converting to {path.name}")
        if format == "onnx":
            write_onnx(model, spec, temporary)
        else:
            settings = PackageOptions(target, tuple(fp32_layers), tuple(chosen.images) if chosen else ())
            write_coreml(model, spec, temporary, settings)
        result = _verified(checkpoint, model, spec, format, temporary, images, report)
    note = "; ".join(part for part in (note, target_note) if part)
    return ExportResult(path=path, spec=spec, note=note, format=format, size=size_of(path), **result)


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
        if spec.head != "logits":
            raise ModelFileError(f"{sibling}: returns a {spec.head}, not logits: give it with -m, or move it away")
        if spec.provenance.get("checkpoint_sha256") == sha256_of(checkpoint) and spec.scale == wanted.scale:
            return sibling, False
    return export_model(checkpoint, "onnx", sibling, scale=scale, report=report).path, True


def _sizes(size: Size | Sequence[Size] | None) -> list[Size]:
    """One size, several or none, as a list."""
    if not size:
        return []
    several = [size] if isinstance(size[0], int) else size
    return [(height, width) for height, width in several]  # type: ignore[misc]


def _size_changes(sizes: tuple[Size, ...]) -> dict[str, Any]:
    return {"input_size": sizes[0] if sizes else None, "input_sizes": sizes if len(sizes) > 1 else ()}


def _check_output(checkpoint: Path, format: str, output: Path | str | None) -> Path:
    suffix = FORMATS[format]
    path = checkpoint.with_suffix(suffix) if output is None else Path(output)
    if path.suffix.lower() != suffix:
        raise InputError(f"{path}: {format} artefacts end in {suffix}: choose another output")
    package = format == "coreml"
    if path.exists() and (path.is_dir() != package or (package and not (path / "Manifest.json").is_file())):
        raise InputError(f"{path} is there and is no {format} artefact: move it away or choose another output")
    return path


def _calibration(
    compression: str | None, checkpoint: Path, spec: ModelSpec, given: list[Path] | None, report: Callable[[str], None]
) -> CheckImages | None:
    if not compression or not COMPRESSIONS[compression].needs_images:
        return None
    chosen = calibration_images(checkpoint, spec, given)
    report(f"calibrating on {chosen.origin}")
    return chosen


def _compression(name: str | None, chosen: CheckImages | None) -> dict[str, Any]:
    """What the provenance tells of a compression."""
    if not name:
        return {}
    images = {"calibrated_on": chosen.origin} if chosen else {}
    return {"compression": {"name": name, "text": COMPRESSIONS[name].text, **images}}


def _artefact_spec(loaded: Checkpoint, format: str, about: Mapping[str, Any], **changes: Any) -> ModelSpec:
    provenance = {
        **loaded.spec.provenance,
        **about,
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
    images = choose_images(checkpoint, spec, given)
    report(f"comparing with PyTorch on {images.origin}")
    candidate, proof = _opened(artefact, format)
    if candidate.spec != spec:
        raise ModelFileError(f"{artefact}: the spec came back changed: this is a defect, please report it")
    agreement, applied = check_each_size(model, candidate, images, tolerance_of(spec))
    return {
        "agreement": agreement,
        "tolerance": applied,
        "images": images.origin,
        "proof": proof,
    }


def _opened(artefact: Path, format: str) -> tuple[Backend, str]:
    """The artefact in its own runtime; where Core ML is not, in the reference interpreter, and what that proves."""
    if format == "coreml" and sys.platform != "darwin":
        return CoreMLReferenceBackend(artefact), BY_REFERENCE
    return load_backend(artefact, format), ""


def _tolerance(tolerance: Tolerance) -> dict[str, float]:
    if isinstance(tolerance, LossTolerance):
        return {"dice": tolerance.least_dice}
    return {"max_logit_difference": tolerance.max_logit_difference, "equal_labels": tolerance.equal_labels}
