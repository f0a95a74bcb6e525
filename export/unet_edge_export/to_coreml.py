"""Checkpoint to a Core ML package (ML Program); converts on Linux and on a Mac."""

from __future__ import annotations

import json
import math
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unet_edge.model import UNet
from unet_edge_runtime.errors import BackendError, MissingExtraError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .graph import ExportGraph, trace
from .quiet import first_line, quiet

if TYPE_CHECKING:
    from numpy.typing import DTypeLike

__all__ = ["TARGETS", "describe_package", "takes_image", "write_coreml"]

TARGETS = ("macOS13", "macOS14", "macOS15")  # each with the iOS of its year: 16, 17, 18

_MIL_FLOATS = (10, 11)  # FLOAT16, FLOAT32 in MIL.proto's DataType


def takes_image(spec: ModelSpec) -> bool:
    """Whether the package can take a picture itself: 8-bit grey or RGB, and nothing but 1/255 before the network."""
    return spec.channels in (1, 3) and spec.bits == 8 and not spec.mean and not spec.std


def write_coreml(model: UNet, spec: ModelSpec, path: Path, target: str = "macOS14") -> None:
    """Write a self-describing .mlpackage.

    The input is an 8-bit picture where `takes_image` allows it, with the scale 1/255 inside; else a
    (1, C, H, W) array. The output is an array in the package's precision, or int32 for a class map.

    Args:
        model: the trained network.
        spec: what is embedded; `input_size`, `precision`, `head`, `input_name` and `output_name` shape the package.
        path: the folder to make; ends in .mlpackage.
        target: oldest system that is to run it, one of `TARGETS`.

    Raises:
        MissingExtraError: coremltools is not installed.
        BackendError: coremltools could not convert the network.
    """
    ct = _coremltools()
    assert spec.input_size is not None
    half = spec.precision == "fp16"
    with quiet():
        try:
            program = trace(ExportGraph(model, spec, torch.int32), spec.channels, spec.input_size)
            package = ct.convert(
                program.run_decompositions({}),
                inputs=[_input(ct, spec)],
                outputs=[ct.TensorType(name=spec.output_name, dtype=_output_type(spec))],
                convert_to="mlprogram",
                minimum_deployment_target=getattr(ct.target, target),
                compute_precision=ct.precision.FLOAT16 if half else ct.precision.FLOAT32,
                skip_model_load=True,
            )
            _describe(package, spec)
            package.save(str(path))
        # coremltools raises whatever its hundred passes run into.
        except Exception as error:
            raise BackendError(
                f"coremltools {ct.__version__} could not convert the network ({first_line(error)}): "
                "install other versions of coremltools and torch"
            ) from error


def describe_package(path: Path | str) -> dict[str, Any]:
    """What a package that unet-edge exported says about itself, read without running it.

    Returns:
        Plain data: `interface` (name -> [type, *shape]), `spec`, `specification`, `description`, `author`,
        `license`, `version`, `operations` (type -> count) and `parameters`.

    Raises:
        MissingExtraError: coremltools is not installed.
        ModelFileError: missing, damaged, or not exported by unet-edge.
    """
    path = Path(path)
    if not path.is_dir():
        raise ModelFileError(f"{path}: no such Core ML package")
    ct = _coremltools("reading Core ML packages")
    try:
        with quiet():
            model = ct.models.MLModel(str(path), skip_model_load=True).get_spec()
            function = model.mlProgram.functions["main"]
            operations = list(function.block_specializations[function.opset].operations)
    # Protobuf, the package reader and the file system each raise their own.
    except Exception as error:
        raise ModelFileError(f"{path}: not a readable Core ML package ({first_line(error)}): export it again") from None
    metadata = model.description.metadata
    if METADATA_KEY not in metadata.userDefined:
        raise ModelFileError(f"{path}: carries no {METADATA_KEY}; only models from `unet-edge export` do")
    return {
        "interface": {v.name: _interface(v.type) for v in (*model.description.input, *model.description.output)},
        "spec": ModelSpec.from_json(metadata.userDefined[METADATA_KEY], str(path)).to_dict(),
        "specification": model.specificationVersion,
        "description": metadata.shortDescription,
        "author": metadata.author,
        "license": metadata.license,
        "version": metadata.versionString,
        "operations": dict(Counter(op.type for op in operations if op.type != "const").most_common()),
        "parameters": sum(_weights(op.outputs[0].type.tensorType) for op in operations if op.type == "const"),
    }


def _interface(kind: Any) -> list[Any]:
    if kind.WhichOneof("Type") == "imageType":
        picture = kind.imageType
        return [f"{picture.ColorSpace.Name(picture.colorSpace)} picture", picture.height, picture.width]
    array = kind.multiArrayType
    return [array.ArrayDataType.Name(array.dataType), *array.shape]


def _weights(tensor: Any) -> int:
    """Numbers in a constant; 0 for scalars and integers, which are settings of operations."""
    if tensor.rank == 0 or tensor.dataType not in _MIL_FLOATS:
        return 0
    return math.prod(dimension.constant.size for dimension in tensor.dimensions)


def _coremltools(purpose: str = "export to Core ML") -> Any:
    try:
        with quiet():
            import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "coremltools", "export", purpose) from None
    return coremltools


def _input(ct: Any, spec: ModelSpec) -> Any:
    assert spec.input_size is not None
    shape = (1, spec.channels, *spec.input_size)
    if not takes_image(spec):
        return ct.TensorType(name=spec.input_name, shape=shape, dtype=_float_type(spec))
    layout = ct.colorlayout.RGB if spec.channels == 3 else ct.colorlayout.GRAYSCALE
    return ct.ImageType(name=spec.input_name, shape=shape, color_layout=layout, scale=1 / 255)


def _float_type(spec: ModelSpec) -> DTypeLike:
    return np.float16 if spec.precision == "fp16" else np.float32


def _output_type(spec: ModelSpec) -> DTypeLike:
    # Core ML has no smaller integer array before macOS 26.
    return np.int32 if spec.head == "classmap" else _float_type(spec)


def _describe(package: Any, spec: ModelSpec) -> None:
    names = ", ".join(spec.class_names)
    provenance = spec.provenance
    package.short_description = f"U-Net segmentation into {len(spec.classes)} classes: {names}"
    package.author = str(provenance.get("author", f"exported by unet-edge from {provenance.get('checkpoint')}"))
    package.license = str(provenance.get("license", "not stated"))
    package.version = str(provenance.get("checkpoint_sha256", ""))[:12]
    package.input_description[spec.input_name] = _input_text(spec)
    package.output_description[spec.output_name] = _output_text(spec)
    package.user_defined_metadata[METADATA_KEY] = spec.to_json()
    if takes_image(spec) and spec.outputs == len(spec.classes):
        _add_preview(package, spec)


def _input_text(spec: ModelSpec) -> str:
    assert spec.input_size is not None
    size = f"{spec.input_size[0]}x{spec.input_size[1]} (height x width)"
    before = f"; images are scaled by {spec.scale:g} and filled up ({spec.padding}) below and to the right to that size"
    if takes_image(spec):
        return f"{'RGB' if spec.channels == 3 else 'Grey'} picture, 8 bits, {size}{before}"
    return f"(1, {spec.channels}, height, width) array of [0, 1] values, (x - mean) / std, {size}{before}"


def _output_text(spec: ModelSpec) -> str:
    if spec.head == "classmap":
        return f"(1, 1, height, width): label of each pixel, 0 to {len(spec.classes) - 1}"
    what = spec.class_names[1] if spec.outputs == 1 else "each class"
    return f"(1, {spec.outputs}, height, width): {spec.head} of {what}"


def _add_preview(package: Any, spec: ModelSpec) -> None:
    """Xcode's preview of a segmenter (coremltools guide, "Xcode Model Preview Types")."""
    colors = ["{:02X}{:02X}{:02X}".format(*info.color) for info in spec.classes]
    metadata = package.user_defined_metadata
    metadata["com.apple.coreml.model.preview.type"] = "imageSegmenter"
    metadata["com.apple.coreml.model.preview.params"] = json.dumps({"labels": spec.class_names, "colors": colors})
