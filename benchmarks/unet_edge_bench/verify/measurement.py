"""How far two outputs are apart: of one image, or merged over many."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_runtime.errors import BackendError
from unet_edge_runtime.scores import Agreement, ConfusionMatrix
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import probabilities

from .boundary import Boundary, boundary_agreement
from .flips import Flips, reference_margins
from .sides import Output, Side

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Measurement", "comparable", "comparable_values", "measure"]


@dataclass
class Measurement:
    """What is counted and summed.

    Attributes:
        agreement: largest difference, flipped pixels and the confusion of labels.
        boundary: of the labels' outlines.
        flips: the reference's margins where labels differ.
        values: numbers compared; 0 where only labels are.
        difference: sum of the absolute differences.
        noise: sum of the squared differences.
        signal: sum of the reference's squares.
        magnitude: largest absolute value of the reference.
        not_finite: NaN and infinite numbers, of the reference and of the candidate.
    """

    agreement: Agreement
    boundary: Boundary = field(default_factory=Boundary)
    flips: Flips = field(default_factory=Flips)
    values: int = 0
    difference: float = 0.0
    noise: float = 0.0
    signal: float = 0.0
    magnitude: float = 0.0
    not_finite: tuple[int, int] = (0, 0)

    @classmethod
    def of(cls, classes: int) -> Measurement:
        """Nothing measured yet, of this many classes."""
        return cls(Agreement(confusion=ConfusionMatrix(classes)))

    def merge(self, other: Measurement) -> None:
        """Count what `other` has counted too."""
        self.agreement.merge(other.agreement)
        self.boundary.merge(other.boundary)
        self.flips.merge(other.flips)
        self.values += other.values
        self.difference += other.difference
        self.noise += other.noise
        self.signal += other.signal
        self.magnitude = max(self.magnitude, other.magnitude)
        self.not_finite = (self.not_finite[0] + other.not_finite[0], self.not_finite[1] + other.not_finite[1])

    @property
    def identical(self) -> bool:
        """Whether not one compared number differs."""
        return not any(self.not_finite) and self.noise == 0 and not self.agreement.flipped

    @property
    def snr_db(self) -> float | None:
        """Signal-to-noise ratio, 10 log10(sum reference^2 / sum difference^2); None for no noise or no numbers."""
        if not self.values or not self.noise or not math.isfinite(self.noise):
            return None
        return 10 * math.log10(self.signal / self.noise) if self.signal else -math.inf

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON; None where a number does not exist."""
        confusion, numbers = self.agreement.confusion, self.values > 0
        largest = self.agreement.max_difference
        return {
            "identical": self.identical,
            "max_difference": largest if numbers and math.isfinite(largest) else None,
            "mean_difference": self.difference / self.values if numbers and math.isfinite(self.difference) else None,
            "snr_db": _finite(self.snr_db),
            "equal_labels": self.agreement.equal_labels,
            "pixels": self.agreement.pixels,
            "flipped": self.agreement.flipped,
            "flips": self.flips.to_dict() if self.flips.count == self.agreement.flipped else None,
            "dice": self.agreement.dice,
            "iou": confusion.mean(confusion.iou),
            "boundary_f1": self.boundary.f1,
            "not_finite": {"reference": self.not_finite[0], "candidate": self.not_finite[1]},
        }


def comparable(reference: ModelSpec, candidate: ModelSpec) -> tuple[str, str]:
    """As what two outputs can be compared, "logits", "probabilities" or "labels", and a note where it is not plain."""
    heads = {reference.head, candidate.head}
    if "classmap" in heads:
        who = "both return" if len(heads) == 1 else "one returns"
        return "labels", f"labels only: {who} a class map without logits"
    if reference.outputs != candidate.outputs:
        return "labels", f"labels only: {reference.outputs} and {candidate.outputs} outputs"
    if reference.scale != candidate.scale:
        return "labels", f"labels only: outputs at scales {reference.scale:g} and {candidate.scale:g}"
    if len(heads) == 2:
        return "probabilities", "compared as probabilities: one returns logits"
    return reference.head, ""


def comparable_values(output: Output, spec: ModelSpec, kind: str) -> NDArray[np.float32]:
    """An output as logits, or as the probabilities (classes, h, w) that follow from it."""
    if kind == "logits" or (kind == spec.head and spec.outputs > 1):
        return output.values
    return probabilities(output.values, spec, (output.values.shape[1], output.values.shape[2]))


def measure(reference: Side, candidate: Side, ours: Output, theirs: Output) -> Measurement:
    """Compare two outputs for one image.

    Args:
        reference: its spec turns `ours` into labels.
        candidate: its spec turns `theirs` into labels.
        ours: the reference's output.
        theirs: the candidate's output.

    Raises:
        BackendError: the images' sizes differ, or a label that is none of the classes.
    """
    if ours.size != theirs.size:
        raise BackendError(f"the outputs are of images of {ours.size} and {theirs.size}: save them again")
    with np.errstate(all="ignore"):  # NaN and infinite values are counted, and reported as such
        labels = reference.labels(ours)
        return _measured(reference, ours, labels, candidate, theirs, candidate.labels(theirs))


def _measured(
    reference: Side,
    ours: Output,
    labels: NDArray[np.uint8],
    candidate: Side,
    theirs: Output,
    their_labels: NDArray[np.uint8],
) -> Measurement:
    spec, classes = reference.spec, len(reference.spec.classes)
    highest = max(int(labels.max()), int(their_labels.max()))
    if highest >= classes:
        raise BackendError(f"label {highest} was returned, and there are {classes} classes: export the model again")
    found = Measurement.of(classes)
    found.not_finite = _not_finite(ours.values), _not_finite(theirs.values)
    kind = comparable(spec, candidate.spec)[0]
    left = right = None
    if kind != "labels":
        left, right = (comparable_values(o, s.spec, kind) for o, s in ((ours, reference), (theirs, candidate)))
        _add_differences(found, left, right)
    found.agreement.add(ours.values if left is None else left, right, labels, their_labels)
    flipped = labels != their_labels
    if spec.head != "classmap" and flipped.any():
        found.flips.add(*reference_margins(ours, spec, labels, flipped))
    found.boundary = boundary_agreement(labels, their_labels)
    return found


def _add_differences(found: Measurement, left: NDArray[np.float32], right: NDArray[np.float32]) -> None:
    # Plane by plane in double precision: a sum of a million squares is too long for single precision.
    for ours, theirs in zip(left, right, strict=True):
        difference = ours.astype(np.float64) - theirs
        found.difference += float(np.abs(difference).sum())
        found.noise += float(np.square(difference).sum())
        found.signal += float(np.square(ours, dtype=np.float64).sum())
    found.values = left.size
    found.magnitude = float(np.abs(left).max())


def _not_finite(values: NDArray[np.float32]) -> int:
    return int(values.size - np.isfinite(values).sum())


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None
