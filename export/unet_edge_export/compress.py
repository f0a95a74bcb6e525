"""Smaller packages: what can be done to weights and activations, and how much of the masks must survive it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import LEAST_DICE, compression_name

from .palettes import kmeans_palette
from .pruning import layer_sparsities

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPRESSIONS", "Compression", "compress", "compression_of"]

SMALLEST = 512  # weights; layers with more are compressed, the others cost nothing and may matter most
BLOCK = 32  # input channels that share a scale, where a layer's number of them allows it

ActivationQuantizer = Callable[[Any], Any]


@dataclass(frozen=True)
class Compression:
    """One form of compression.

    Attributes:
        name: what `--compress` calls it.
        text: what is done, for people.
        target: oldest system that can run it, if that is newer than the default.
        needs_images: whether it looks at the activations of real images.
    """

    name: str
    text: str
    target: str | None = None
    needs_images: bool = False

    @property
    def least_dice(self) -> float:
        """Mean Dice over the classes that a package must keep, PyTorch's labels being the truth."""
        return LEAST_DICE[self.name]


COMPRESSIONS = {
    each.name: each
    for each in (
        Compression("int8", "8-bit weights, a scale for each output channel"),
        Compression("palette8", "weights from a palette of 256 values a layer"),
        Compression("palette6", "weights from a palette of 64 values a layer"),
        Compression("palette4", "weights from a palette of 16 values a layer"),
        Compression("int4", f"4-bit weights, a scale for up to {BLOCK} input channels", target="macOS15"),
        Compression("sparse50", "half of all weights is zero, more in the layers that miss them least"),
        Compression("w8a8", "8-bit weights and activations, calibrated on images", needs_images=True),
    )
}
"""Name -> form of compression."""


def compression_of(spec: ModelSpec) -> Compression | None:
    """The compression that an artefact's provenance tells of, or None."""
    name = compression_name(spec)
    return COMPRESSIONS[name] if name else None


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
