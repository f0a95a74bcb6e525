"""Smaller packages: what can be done to weights and activations, and how much of the masks must survive it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import ModelSpec

from .palettes import kmeans_palette
from .parity import TOLERANCES, Tolerance
from .pruning import layer_sparsities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPRESSIONS", "Compression", "LossTolerance", "compress", "compression_of", "tolerance_of"]

SMALLEST = 512  # weights; layers with more are compressed, the others cost nothing and may matter most
BLOCK = 32  # input channels that share a scale, where a layer's number of them allows it

TOLERANCE_AS = {"mixed": "fp16"}  # precision -> the one whose tolerance applies

ActivationQuantizer = Callable[[Any], Any]


@dataclass(frozen=True)
class Compression:
    """One form of compression.

    Attributes:
        name: what `--compress` calls it.
        text: what is done, for people.
        least_dice: mean Dice over the classes that a package must keep, PyTorch's labels being the truth.
        target: oldest system that can run it, if that is newer than the default.
        needs_images: whether it looks at the activations of real images.
    """

    name: str
    text: str
    least_dice: float
    target: str | None = None
    needs_images: bool = False


# The bounds leave room for other networks than those measured (benchmarks/COMPRESSION.md): they catch a broken
# compression, not a slightly lossy one.
COMPRESSIONS = {
    each.name: each
    for each in (
        Compression("int8", "8-bit weights, a scale for each output channel", 0.98),
        Compression("palette8", "weights from a palette of 256 values a layer", 0.98),
        Compression("palette6", "weights from a palette of 64 values a layer", 0.97),
        Compression("palette4", "weights from a palette of 16 values a layer", 0.85),
        Compression("int4", f"4-bit weights, a scale for up to {BLOCK} input channels", 0.85, target="macOS15"),
        Compression("sparse50", "half of all weights is zero, more in the layers that miss them least", 0.90),
        Compression("w8a8", "8-bit weights and activations, calibrated on images", 0.97, needs_images=True),
    )
}
"""Name -> form of compression."""


def compression_of(spec: ModelSpec) -> Compression | None:
    """The compression that an artefact's provenance tells of, or None."""
    told = spec.provenance.get("compression")
    return COMPRESSIONS.get(str(told.get("name"))) if isinstance(told, dict) else None


@dataclass(frozen=True)
class LossTolerance(Tolerance):
    """How far a compressed artefact may be: its masks count, not its logits, which are meant to differ.

    Attributes:
        least_dice: mean Dice over the classes that occur, PyTorch's labels being the truth.
    """

    max_logit_difference: float = math.inf
    equal_labels: float = 0.0
    least_dice: float = 0.0

    def at(self, magnitude: float) -> Tolerance:
        """The same: Dice does not depend on the outputs' magnitude."""
        return self

    def problems(self, agreement: Agreement) -> list[str]:
        """What exceeds the tolerance; NaN and infinite outputs always do."""
        if agreement.compared_logits and math.isinf(agreement.max_difference):
            return ["NaN or infinite values"]
        dice = agreement.dice or 0.0
        return [] if dice >= self.least_dice else [f"Dice with PyTorch {dice:.4f}, required {self.least_dice:g}"]


def tolerance_of(spec: ModelSpec) -> Tolerance:
    """What an artefact of this precision and compression is allowed."""
    compression = compression_of(spec)
    if compression is None:
        return TOLERANCES[TOLERANCE_AS.get(spec.precision, spec.precision)]
    return LossTolerance(least_dice=compression.least_dice)


def compress(package: Any, name: str, quantize_activations: ActivationQuantizer | None = None) -> Any:
    """A compressed copy of a package with one function.

    Args:
        package: a coremltools `MLModel`, an ML Program.
        name: one of `COMPRESSIONS`.
        quantize_activations: is given the package and returns it with 8-bit activations, for those that need images.

    Returns:
        Another `MLModel`.
    """
    import coremltools.optimize.coreml as cto

    if name == "sparse50":
        return cto.prune_weights(package, _half_of_all(cto, package))
    if name.startswith("palette"):
        return cto.palettize_weights(package, _config(cto, _palettes(cto, int(name.removeprefix("palette")))))
    if name == "int4":
        return cto.linear_quantize_weights(package, _blocks_of_four_bits(cto, package))
    if COMPRESSIONS[name].needs_images:
        assert quantize_activations is not None
        package = quantize_activations(package)
    return cto.linear_quantize_weights(package, _config(cto, _linear(cto)))


def _config(cto: Any, settings: Any) -> Any:
    return cto.OptimizationConfig(global_config=settings)


def _linear(cto: Any, **settings: Any) -> Any:
    return cto.OpLinearQuantizerConfig(mode="linear_symmetric", weight_threshold=SMALLEST, **settings)


def _palettes(cto: Any, bits: int) -> Any:
    def palette(weights: NDArray[np.floating]) -> tuple[NDArray[np.floating], NDArray[np.uint8]]:
        return kmeans_palette(weights, bits)

    return cto.OpPalettizerConfig(mode="custom", lut_function=palette, weight_threshold=SMALLEST)


def _blocks_of_four_bits(cto: Any, package: Any) -> Any:
    """A block size for each layer: coremltools skips, with a warning, layers that a common one does not divide."""
    layers = {}
    for name, weights in cto.get_weights_metadata(package, weight_threshold=SMALLEST).items():
        kind = weights.child_ops[0].op_type
        channels = weights.val.shape[0 if kind == "conv_transpose" else 1]
        block = next(size for size in range(min(BLOCK, channels), 0, -1) if channels % size == 0)
        layers[name] = _linear(cto, dtype="int4", granularity="per_block", block_size=block)
    return cto.OptimizationConfig(op_name_configs=layers)


def _half_of_all(cto: Any, package: Any) -> Any:
    weights = cto.get_weights_metadata(package, weight_threshold=SMALLEST)
    shares = layer_sparsities({name: each.val for name, each in weights.items()}, 0.5)
    return cto.OptimizationConfig(
        op_name_configs={
            name: cto.OpMagnitudePrunerConfig(target_sparsity=share, weight_threshold=SMALLEST)
            for name, share in shares.items()
        }
    )
