"""What a Core ML package says about itself, read without running it."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

from unet_edge_runtime.errors import MissingExtraError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY

from .mil import Feature, Function, Package
from .quiet import quiet

__all__ = ["coremltools_for", "describe_package"]

_LAYERS = ("conv", "conv_transpose")


def coremltools_for(purpose: str) -> Any:
    """The module coremltools, imported without its chatter.

    Raises:
        MissingExtraError: it is not installed; `purpose` says what it is needed for.
    """
    try:
        with quiet():
            import coremltools
    except ModuleNotFoundError as error:
        raise MissingExtraError(error.name or "coremltools", "export", purpose) from None
    return coremltools


def describe_package(path: Path | str) -> dict[str, Any]:
    """What a package that unet-edge exported says about itself, read without running it, and without coremltools.

    Returns:
        Plain data: `interface` (name -> [type, *shape]), `spec`, `specification`, `description`, `author`,
        `license`, `version`, `operations` (type -> count) and `parameters`; all of the default function, where
        there are several, and then `functions` (name -> interface).

    Raises:
        ModelFileError: missing, damaged, or not exported by unet-edge.
    """
    path = Path(path)
    if path.is_dir() and not (path / "Manifest.json").exists():
        raise ModelFileError(f"{path}: not a readable Core ML package (it has no Manifest.json): export it again")
    package = Package(path)
    spec = package.model_spec
    if spec is None:
        raise ModelFileError(f"{package.path}: carries no {METADATA_KEY}; only models from `unet-edge export` do")
    function = package.function()
    several = {name: _interface(package.function(name)) for name in package.functions} if spec.input_sizes else {}
    return {
        "interface": _interface(function),
        **({"functions": several} if several else {}),
        "spec": spec.to_dict(),
        "specification": package.spec_version,
        "description": package.short_description,
        "author": package.author,
        "license": package.license,
        "version": package.version,
        "operations": dict(Counter(op.type for op in function.operations if op.type != "const").most_common()),
        "parameters": _parameters(function),
    }


def _interface(function: Function) -> dict[str, list[Any]]:
    return {feature.name: _kind(feature) for feature in (*function.inputs, *function.outputs)}


def _kind(feature: Feature) -> list[Any]:
    if feature.kind == "image":
        return [f"{feature.color} picture", *feature.shape]
    # Core ML's own name of the type, as Xcode shows it.
    return [feature.dtype.upper().replace("FP", "FLOAT"), *feature.shape]


def _parameters(function: Function) -> int:
    """Weights and biases of all convolutions, in whatever form they are stored."""
    sizes = {output.name: output.elements or 0 for op in function.operations for output in op.outputs}
    layers = [op for op in function.operations if op.type in _LAYERS]
    values = [value for op in layers for name in ("weight", "bias") for value in op.inputs.get(name, ())]
    return sum(sizes.get(value, 0) if isinstance(value, str) else value.type.elements or 0 for value in values)
