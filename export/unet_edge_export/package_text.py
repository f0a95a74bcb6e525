"""What a Core ML package tells people and Xcode about itself."""

from __future__ import annotations

import json
from typing import Any

from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .compress import compression_of

__all__ = ["describe_features", "describe_model", "takes_image"]

_PREVIEW = "com.apple.coreml.model.preview"


def takes_image(spec: ModelSpec) -> bool:
    """Whether the package can take a picture itself: 8-bit grey or RGB, and nothing but 1/255 before the network."""
    return spec.channels in (1, 3) and spec.bits == 8 and not spec.mean and not spec.std


def describe_features(package: Any, spec: ModelSpec) -> None:
    """Texts of the input and the output of a package with one function."""
    package.input_description[spec.input_name] = _input_text(spec)
    package.output_description[spec.output_name] = _output_text(spec)


def describe_model(package: Any, spec: ModelSpec) -> None:
    """The package's fields, its embedded spec, and Xcode's preview."""
    told = spec.provenance
    package.short_description = str(told.get("description") or _model_text(spec))
    package.author = str(told.get("author") or f"exported by unet-edge from {told.get('checkpoint')}")
    package.license = str(told.get("license") or "not stated")
    package.version = str(told.get("model_version") or str(told.get("checkpoint_sha256", ""))[:12])
    package.user_defined_metadata[METADATA_KEY] = spec.to_json()
    if takes_image(spec) and not spec.label_values and (spec.head == "classmap" or spec.outputs == len(spec.classes)):
        _add_preview(package, spec)


def _model_text(spec: ModelSpec) -> str:
    compression = compression_of(spec)
    text = f"U-Net segmentation into {len(spec.classes)} classes: {', '.join(spec.class_names)}"
    return f"{text}; {compression.text}" if compression else text


def _input_text(spec: ModelSpec) -> str:
    assert spec.input_size is not None
    size = f"{spec.input_size[0]}x{spec.input_size[1]} (height x width)"
    before = f"; images are scaled by {spec.scale:g} and filled up ({spec.padding}) below and to the right to that size"
    if takes_image(spec):
        return f"{'RGB' if spec.channels == 3 else 'Grey'} picture, 8 bits, {size}{before}"
    return f"(1, {spec.channels}, height, width) array of [0, 1] values, (x - mean) / std, {size}{before}"


def _output_text(spec: ModelSpec) -> str:
    if spec.label_values:
        pairs = (f"{value} {name}" for value, name in zip(spec.label_values, spec.class_names, strict=True))
        return f"Grey picture of the mask: {', '.join(pairs)}"
    if spec.head == "classmap":
        return f"(height, width): label of each pixel, 0 to {len(spec.classes) - 1}"
    what = spec.class_names[1] if spec.outputs == 1 else "each class"
    return f"(1, {spec.outputs}, height, width): {spec.head} of {what}"


def _add_preview(package: Any, spec: ModelSpec) -> None:
    """Xcode's preview of a segmenter (coremltools guide, "Xcode Model Preview Types")."""
    colors = ["{:02X}{:02X}{:02X}".format(*info.color) for info in spec.classes]
    metadata = package.user_defined_metadata
    metadata[f"{_PREVIEW}.type"] = "imageSegmenter"
    metadata[f"{_PREVIEW}.params"] = json.dumps({"labels": spec.class_names, "colors": colors})
