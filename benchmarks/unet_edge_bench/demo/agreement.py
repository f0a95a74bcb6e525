"""Every backend on the same images: masks written, scored against the truth, compared with the reference."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from unet_edge.data.pairing import Pair
from unet_edge_runtime.errors import AgreementError
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.scores import Agreement, ConfusionMatrix
from unet_edge_runtime.segmenter import Segmentation, Segmenter, save_picture
from unet_edge_runtime.tolerance import Tolerance, tolerance_of

__all__ = ["Outcome", "insist_on_agreement", "mask_file", "overlay_file", "predict_all"]


@dataclass(frozen=True)
class Outcome:
    """What a backend made of the images.

    Attributes:
        scores: as `ConfusionMatrix.summary` gives them.
        agreement: with the reference; None for the reference itself.
        tolerance: what was allowed, scaled to the reference's logits; None likewise.
    """

    scores: dict[str, Any]
    agreement: Agreement | None = None
    tolerance: Tolerance | None = None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        if self.agreement is None or self.tolerance is None:
            return {"scores": self.scores, "agreement": None}
        allowed = {
            "allowed_logit_difference": self.tolerance.max_logit_difference,
            "required_equal_labels": self.tolerance.equal_labels,
        }
        flipped = {"different_pixels": self.agreement.flipped}
        return {"scores": self.scores, "agreement": {**self.agreement.to_dict(), **flipped, **allowed}}


def mask_file(folder: Path, backend: str, name: str) -> Path:
    """Where a backend's mask of an image lies."""
    return folder / backend / f"{name}_OUT.png"


def overlay_file(folder: Path, backend: str, name: str) -> Path:
    """Where the image tinted with a backend's mask lies."""
    return folder / backend / f"{name}_OVERLAY.png"


def predict_all(segmenters: Mapping[str, Segmenter], pairs: Iterable[Pair], folder: Path) -> dict[str, Outcome]:
    """Run every backend on every image.

    Args:
        segmenters: open models by backend; the first is the reference.
        pairs: images with their true masks.
        folder: gets a folder of masks and overlays for each backend.

    Returns:
        What came out, by backend. Whether it is good enough is for `insist_on_agreement` to say.

    Raises:
        InputError: a file cannot be read or written.
        BackendError: a runtime failed.
    """
    reference_name, reference = next(iter(segmenters.items()))
    matrices = {name: ConfusionMatrix(len(reference.spec.classes)) for name in segmenters}
    agreements = {name: Agreement() for name in segmenters if name != reference_name}
    magnitude = 0.0
    for pair in pairs:
        truth = labels_from_mask(read_mask(pair.mask), reference.spec, pair.mask)
        results = {name: segmenter.segment(pair.image) for name, segmenter in segmenters.items()}
        expected = results[reference_name]
        magnitude = max(magnitude, float(np.abs(expected.output).max()))
        for name, result in results.items():
            matrices[name].add(truth, result.labels)
            _write(result, folder, name, pair.name)
            if name in agreements:
                agreements[name].add(expected.output, result.output, expected.labels, result.labels)
    outcomes = {reference_name: Outcome(matrices[reference_name].summary(reference.spec))}
    for name, agreement in agreements.items():
        spec = segmenters[name].spec
        tolerance = tolerance_of(spec).at(magnitude)
        outcomes[name] = Outcome(matrices[name].summary(spec), agreement, tolerance)
    return outcomes


def insist_on_agreement(outcomes: Mapping[str, Outcome]) -> None:
    """Check every backend against its tolerance.

    Raises:
        AgreementError: with the numbers of each backend that is beyond it.
    """
    problems = []
    for name, outcome in outcomes.items():
        if outcome.agreement and outcome.tolerance:
            problems += [f"{name}: {text}" for text in outcome.tolerance.problems(outcome.agreement)]
    if problems:
        raise AgreementError(f"not every backend agrees with {next(iter(outcomes))}: {'; '.join(problems)}")


def _write(result: Segmentation, folder: Path, backend: str, name: str) -> None:
    result.save(mask_file(folder, backend, name))
    save_picture(result.overlay, overlay_file(folder, backend, name))
