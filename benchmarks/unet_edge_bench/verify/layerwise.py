"""The way to the comparison layer by layer, which needs more packages than this part of the suite."""

from __future__ import annotations

from typing import TYPE_CHECKING

from unet_edge_runtime.errors import InputError, MissingExtraError

if TYPE_CHECKING:
    from unet_edge_bench.layers import LayerReport

    from .report import PairReport

__all__ = ["layers_of"]


def layers_of(report: PairReport) -> LayerReport:
    """Compare the layers of a pair on its worst image.

    Raises:
        InputError: one side is saved outputs, or no image was compared.
        MissingExtraError: a package that it needs is not installed.
    """
    reference, candidate = report.reference.model, report.candidate.model
    if not report.images:
        raise InputError(f"{report.candidate.name}: no image was compared, so its layers cannot be")
    if reference is None or candidate is None:
        raise InputError("layers are compared where both models can run, not from saved outputs: give both models")
    try:
        from unet_edge_bench.layers import compare_layers
    except ModuleNotFoundError as error:
        raise MissingExtraError((error.name or "a package").partition(".")[0], "export", "verify --layers") from None
    names = reference.segmenter.backend.name, candidate.segmenter.backend.name
    scales = reference.segmenter.backend.spec.scale, candidate.segmenter.backend.spec.scale
    pixels = report.images[0].sample.pixels()
    return compare_layers(reference.path, candidate.path, pixels, backends=names, scales=scales)
