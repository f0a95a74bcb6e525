"""Checkpoint to a Core ML package (ML Program); converts on Linux and on a Mac."""

from __future__ import annotations

import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from unet_edge.model import UNet
from unet_edge_runtime.errors import BackendError, UnetEdgeError
from unet_edge_runtime.spec import ModelSpec, function_name

from .calibrate import activation_quantizer
from .compress import compress, compression_of
from .graph import HEAD_LAYER, ExportGraph, layer_names, trace
from .package_facts import coremltools_for, describe_package
from .package_text import describe_features, describe_model, takes_image
from .quiet import first_line, quiet

if TYPE_CHECKING:
    from numpy.typing import DTypeLike, NDArray

__all__ = ["TARGETS", "PackageOptions", "describe_package", "takes_image", "write_coreml"]

TARGETS = ("macOS13", "macOS14", "macOS15", "macOS26")  # each with the iOS of its year: 16, 17, 18, 26


@dataclass(frozen=True)
class PackageOptions:
    """How a package is made, besides what its spec says.

    Attributes:
        target: oldest system that is to run it, one of `TARGETS`.
        fp32_layers: layers that stay in fp32 where the spec's precision is "mixed", such as outc or up4.conv.
        calibration: images, files or arrays as `read_image` returns, for a compression that needs them.
    """

    target: str = "macOS14"
    fp32_layers: tuple[str, ...] = ()
    calibration: tuple[Path | NDArray[np.generic], ...] = ()


def write_coreml(model: UNet, spec: ModelSpec, path: Path, options: PackageOptions | None = None) -> None:
    """Write a self-describing .mlpackage.

    The input is an 8-bit picture where `takes_image` allows it, with 1/255 inside the first two convolutions; else a
    (1, C, H, W) array. The output is an array of the precision of the last layer; an (H, W) int32 array for a class
    map; an 8-bit grey picture where the spec has `label_values`. Several `input_sizes` become as many functions.

    Args:
        model: the trained network.
        spec: what is embedded; it shapes the package. Its provenance tells of a compression.
        path: the folder to make; ends in .mlpackage.
        options: what the spec does not hold.

    Raises:
        MissingExtraError: coremltools is not installed.
        BackendError: coremltools could not convert the network.
        InputError: an image for calibration cannot be read.
    """
    ct = coremltools_for("export to Core ML")
    options = options or PackageOptions()
    with quiet(), tempfile.TemporaryDirectory() as folder:
        try:
            if spec.input_sizes:
                package = _functions(ct, model, spec, options, Path(folder))
            else:
                package = _function(ct, model, spec, options)
            package.save(str(path))
        except UnetEdgeError:
            raise
        # coremltools raises whatever its hundred passes run into.
        except Exception as error:
            raise BackendError(
                f"coremltools {ct.__version__} could not convert the network ({first_line(error)}): "
                "install other versions of coremltools and torch"
            ) from error


def _functions(ct: Any, model: UNet, spec: ModelSpec, options: PackageOptions, folder: Path) -> Any:
    """A package with a function for each size; equal weights are stored once."""
    several = ct.utils.MultiFunctionDescriptor()
    for size in spec.input_sizes:
        name = function_name(size)
        part = _function(ct, model, spec.replace(input_size=size, input_sizes=()), options)
        part.save(str(folder / f"{name}.mlpackage"))
        several.add_function(str(folder / f"{name}.mlpackage"), "main", name)
    several.default_function_name = function_name(spec.input_sizes[0])
    merged = str(folder / "merged.mlpackage")
    ct.utils.save_multifunction(several, merged)
    package = ct.models.MLModel(merged, skip_model_load=True)
    describe_model(package, spec)
    return package


def _function(ct: Any, model: UNet, spec: ModelSpec, options: PackageOptions) -> Any:
    assert spec.input_size is not None
    graph = ExportGraph(model, spec, torch.int32, pixels=takes_image(spec), plane=True)
    program = trace(graph, spec.channels, spec.input_size).run_decompositions({})
    package = ct.convert(
        program,
        inputs=[_input(ct, spec, options)],
        outputs=[_output(ct, spec, options)],
        convert_to="mlprogram",
        minimum_deployment_target=getattr(ct.target, options.target),
        compute_precision=_precision(ct, spec, options, program),
        pass_pipeline=_passes(ct),
        skip_model_load=True,
    )
    # Opened again, it has lost its debug notes, which would be saved as a file that nothing of ours reads.
    package = ct.models.MLModel(package.get_spec(), weights_dir=package.weights_dir, skip_model_load=True)
    describe_model(package, spec)
    describe_features(package, spec)
    compression = compression_of(spec)
    if compression is None:
        return package
    return compress(package, compression.name, activation_quantizer(spec, options.calibration))


def _passes(ct: Any) -> Any:
    passes = ct.PassPipeline.DEFAULT
    # It would narrow the labels to 16 bits and widen them again, two operations on the CPU for nothing.
    passes.remove_passes({"common::add_int16_cast"})
    return passes


def _precision(ct: Any, spec: ModelSpec, options: PackageOptions, program: torch.export.ExportedProgram) -> Any:
    if spec.precision != "mixed":
        return ct.precision.FLOAT16 if spec.precision == "fp16" else ct.precision.FLOAT32
    # An operation keeps the name of its node in the exported program until after this choice.
    layers = layer_names(program)
    return ct.transform.FP16ComputePrecision(
        op_selector=lambda op: not _is_fp32(layers.get(op.name, ""), options.fp32_layers)
    )


def _is_fp32(layer: str, kept: tuple[str, ...]) -> bool:
    return any(layer == name or layer.startswith(f"{name}.") for name in kept)


def _input(ct: Any, spec: ModelSpec, options: PackageOptions) -> Any:
    assert spec.input_size is not None
    shape = (1, spec.channels, *spec.input_size)
    if not takes_image(spec):
        return ct.TensorType(name=spec.input_name, shape=shape, dtype=_float_at(spec, options, "inc.double_conv.0"))
    layout = ct.colorlayout.RGB if spec.channels == 3 else ct.colorlayout.GRAYSCALE
    return ct.ImageType(name=spec.input_name, shape=shape, color_layout=layout)


def _output(ct: Any, spec: ModelSpec, options: PackageOptions) -> Any:
    if spec.label_values:
        return ct.ImageType(name=spec.output_name, color_layout=ct.colorlayout.GRAYSCALE)
    if spec.head == "classmap":
        # Core ML has smaller integer arrays from macOS 26 on, but Apple's sample reads this type.
        return ct.TensorType(name=spec.output_name, dtype=np.int32)
    last = "outc.conv" if spec.head == "logits" else HEAD_LAYER
    return ct.TensorType(name=spec.output_name, dtype=_float_at(spec, options, last))


def _float_at(spec: ModelSpec, options: PackageOptions, layer: str) -> DTypeLike:
    mixed = spec.precision == "mixed" and not _is_fp32(layer, options.fp32_layers)
    return np.float16 if spec.precision == "fp16" or mixed else np.float32
