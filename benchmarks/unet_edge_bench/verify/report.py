"""What a comparison found, as data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from unet_edge_runtime.tolerance import Tolerance

from .sides import Sample, Side

if TYPE_CHECKING:
    from unet_edge_bench.layers import LayerReport

__all__ = ["ImageReport", "PairReport", "Verification"]


@dataclass(frozen=True)
class ImageReport:
    """One image of one pair.

    Attributes:
        sample: the image.
        measured: as `Measurement.to_dict` gives it.
    """

    sample: Sample
    measured: dict[str, Any]

    @property
    def badness(self) -> tuple[float, ...]:
        """Sorts images, the worst last: by NaN, flips where the reference was sure, flips, largest difference."""
        one = self.measured
        return (
            sum(one["not_finite"].values()),
            (one["flips"] or {}).get("sure") or 0,
            one["flipped"],
            one["max_difference"] or 0.0,
        )

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {"name": self.sample.name, "sha256": self.sample.sha256, **self.measured}


@dataclass
class PairReport:
    """A candidate against the reference, over all images.

    Attributes:
        reference: the side that is taken for right, as it ran for this candidate.
        candidate: the side that is judged.
        kind: what was compared besides labels: logits, probabilities, or labels for nothing.
        tolerance: what was allowed.
        measured: as `Measurement.to_dict` gives it, over all images.
        images: the images, the worst first.
        classes: name, Dice and IoU between the two predictions, a class.
        problems: why it fails; empty when it passes.
        reasons: what explains that, the surest first.
        notes: what else has to be known.
        failures: a line for each image that this candidate alone could not run.
        scores: of both against the true masks, and their difference; None without masks.
        layers: the report of `unet_edge_bench.layers`, where it was asked for or needed.
    """

    reference: Side
    candidate: Side
    kind: str
    tolerance: Tolerance
    measured: dict[str, Any] = field(default_factory=dict)
    images: list[ImageReport] = field(default_factory=list)
    classes: list[dict[str, Any]] = field(default_factory=list)
    problems: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)
    scores: dict[str, Any] | None = None
    layers: LayerReport | None = None

    @property
    def passed(self) -> bool:
        """Whether the candidate agrees, on every image."""
        return not self.problems and not self.failures

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        bound = self.tolerance.max_logit_difference
        return {
            "reference": self.reference.facts(),
            "candidate": self.candidate.facts(),
            "passed": self.passed,
            "problems": self.problems,
            "reasons": self.reasons,
            "notes": self.notes,
            "failures": self.failures,
            "compared": self.kind,
            "tolerance": {
                "max_difference": bound if bound < float("inf") else None,
                "equal_labels": self.tolerance.equal_labels,
                "dice": self.tolerance.least_dice,
            },
            **self.measured,
            "classes": self.classes,
            "scores": self.scores,
            "images": [image.to_dict() for image in self.images],
            "layers": self.layers.to_dict() if self.layers is not None else None,
        }


@dataclass
class Verification:
    """Every candidate against the reference.

    Attributes:
        pairs: one a candidate, in their order.
        images: how many images were compared.
        failures: a line for each image that could not be used for any candidate.
        notes: what else has to be known.
    """

    pairs: list[PairReport]
    images: int = 0
    failures: list[str] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)

    @property
    def passed(self) -> bool:
        """Whether every candidate agrees and every image could be used; never of no image."""
        return bool(self.images) and not self.failures and all(pair.passed for pair in self.pairs)

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON."""
        return {
            "schema": "unet-edge-verify/1",
            "passed": self.passed,
            "images": self.images,
            "failures": self.failures,
            "notes": self.notes,
            "pairs": [pair.to_dict() for pair in self.pairs],
        }
