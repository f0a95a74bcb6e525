"""Run, or load, and compare: image by image, so that memory does not grow with their number."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import UNDECIDED, Tolerance, tolerance_of

from .diagnose import diagnose
from .measurement import Measurement, comparable, measure
from .recording import Progress
from .report import ImageReport, PairReport, Verification
from .sides import Output, Sample, Side
from .specs import mask_differences, reading_differences, treatment_differences
from .truth import Scores, difference_interval, true_labels

__all__ = ["Overrides", "compare"]


@dataclass(frozen=True)
class Overrides:
    """Bounds that take the place of the named ones; None leaves them.

    Attributes:
        max_difference: largest absolute difference of two logits (or probabilities).
        equal_labels: least share of equal labels, 0..1.
        dice: least mean Dice between the two predictions.
    """

    max_difference: float | None = None
    equal_labels: float | None = None
    dice: float | None = None

    def __post_init__(self) -> None:
        # Nothing is above or below NaN: the check could not fail.
        if any(bound is not None and np.isnan(bound) for bound in (self.max_difference, self.equal_labels, self.dice)):
            raise InputError("a tolerance is NaN: give a number")

    def applied(self, tolerance: Tolerance) -> Tolerance:
        """A tolerance with these bounds."""
        return Tolerance(
            tolerance.max_logit_difference if self.max_difference is None else self.max_difference,
            tolerance.equal_labels if self.equal_labels is None else self.equal_labels,
            tolerance.least_dice if self.dice is None else self.dice,
        )


def compare(
    reference: Side,
    candidates: Sequence[Side],
    samples: Sequence[Sample],
    overrides: Overrides | None = None,
    seed: int = 0,
    progress: Progress = iter,
    explain: bool = True,
) -> Verification:
    """Compare every candidate with the reference on every image.

    A reference that takes any size runs padded and tiled like a candidate of fixed size, so that the conversion is
    judged and not the padding; everything else of a model's treatment of images stays its own.

    Args:
        reference: taken for right.
        candidates: judged.
        samples: the images; with masks, each side is scored too.
        overrides: of the tolerances, which follow the less precise side's precision and compression.
        seed: of the bootstrap.
        progress: wraps the samples, for a progress bar.
        explain: look for the reasons of a failure, which runs the candidate a dozen times more.

    Returns:
        A report a candidate, in order. An image that cannot be used is in `failures`, and ends nothing.

    Raises:
        InputError: not one image could be used.
    """
    pairs = [_Pair(reference.like(one.spec), one.like(reference.spec), overrides or Overrides()) for one in candidates]
    result = Verification([pair.report for pair in pairs])
    sides = {id(side): side for pair in pairs for side in (pair.reference, pair.candidate)}
    open_pairs = [pair for pair in pairs if pair.can_run]
    try:
        for sample in progress(samples) if open_pairs else ():
            _compare_one(sample, open_pairs, result)
    finally:
        for side in sides.values():
            side.close()
    for pair in open_pairs:
        pair.finish(seed)
    if open_pairs and not result.images:
        failures = [*result.failures, *(text for pair in pairs for text in pair.report.failures)]
        raise InputError(f"no image could be compared: {failures[0] if failures else 'none was given'}")
    for report in result.pairs:
        if explain and report.problems and report.images:
            report.reasons = diagnose(report)
    return result


def _compare_one(sample: Sample, pairs: Sequence[_Pair], result: Verification) -> None:
    """One image through every pair; each side runs it once."""
    references = {id(pair.reference): pair.reference for pair in pairs}
    try:
        outputs = {key: side.output(sample) for key, side in references.items()}
        size = outputs[id(pairs[0].reference)].size
        truth = true_labels(sample, pairs[0].reference.spec, size) if sample.mask else None
    except UnetEdgeError as error:
        result.failures.append(str(error))
        return
    compared = [pair.add(sample, outputs, truth) for pair in pairs]
    result.images += any(compared)


@dataclass
class _Pair:
    reference: Side
    candidate: Side
    overrides: Overrides
    report: PairReport = field(init=False)
    total: Measurement = field(init=False)
    otherwise: int = 0

    def __post_init__(self) -> None:
        ours, theirs = self.reference.spec, self.candidate.spec
        kind, note = comparable(ours, theirs)
        self.report = PairReport(self.reference, self.candidate, kind, _base_tolerance(ours, theirs))
        self.report.problems = mask_differences(ours, theirs)
        self.report.notes = [note] if note else []
        self.total = Measurement.of(len(ours.classes))
        self.scores = Scores(ours), Scores(ours)
        self._tell_differences()

    @property
    def can_run(self) -> bool:
        """Whether labels of the two mean anything to each other."""
        return len(self.reference.spec.classes) == len(self.candidate.spec.classes)

    def _tell_differences(self) -> None:
        ours, theirs = self.reference.spec, self.candidate.spec
        found = treatment_differences(ours, theirs) + reading_differences(ours, theirs)
        if found:
            self.report.notes.append("the candidate has " + ", ".join(found))
        if (ours.input_sizes or ours.input_size) != (theirs.input_sizes or theirs.input_size):
            self.report.notes.append(
                f"the network's input sizes differ ({_size(ours)} and {_size(theirs)}), and with them the padding"
            )

    def add(self, sample: Sample, outputs: dict[int, Output], truth: Any) -> bool:
        """Compare one image; False where the candidate could not run it."""
        try:
            if id(self.candidate) not in outputs:
                outputs[id(self.candidate)] = self.candidate.output(sample)
            ours, theirs = outputs[id(self.reference)], outputs[id(self.candidate)]
            one = measure(self.reference, self.candidate, ours, theirs)
        except UnetEdgeError as error:
            self.report.failures.append(str(error))
            return False
        self.total.merge(one)
        self.report.images.append(ImageReport(sample, one.to_dict()))
        self.otherwise += any(side.ran_otherwise(ours.size) for side in (self.reference, self.candidate))
        if truth is not None:
            self.scores[0].add(truth, self.reference.labels(ours))
            self.scores[1].add(truth, self.candidate.labels(theirs))
        return True

    def finish(self, seed: int) -> None:
        """Judge what was added."""
        report, total = self.report, self.total
        report.images.sort(key=lambda image: image.badness, reverse=True)
        report.measured = total.to_dict()
        confusion, names = total.agreement.confusion, self.reference.spec.class_names
        rows = zip(names, confusion.dice, confusion.iou, strict=True)
        report.classes = [{"name": name, "dice": dice, "iou": iou} for name, dice, iou in rows]
        magnitude = total.magnitude if report.kind == "logits" and np.isfinite(total.magnitude) else 1.0
        report.tolerance = self.overrides.applied(report.tolerance.at(magnitude))
        if self.otherwise:
            both = f"both padded or tiled to {_size(self.reference.spec)}, the fixed input size"
            report.notes.append(f"{both}: {self.otherwise} of {len(report.images)} images")
        if self.scores[0].images:
            report.scores = self._scores(seed)
        report.problems += self._problems()

    def _problems(self) -> list[str]:
        total = self.total
        who = [name for name, count in zip(("reference", "candidate"), total.not_finite, strict=True) if count]
        if who:
            return [f"the {' and the '.join(who)} returned NaN or infinite values"]
        if not total.agreement.pixels:
            return ["no image could be run"]
        # Whether the network was undecided there is for the reasons to say, which look at its margins.
        return [text for text in self.report.tolerance.problems(total.agreement) if text != UNDECIDED]

    def _scores(self, seed: int) -> dict[str, Any]:
        ours, theirs = self.scores
        interval = difference_interval(ours, theirs, seed)
        return {"reference": ours.summary(), "candidate": theirs.summary(), "difference": interval}


def _base_tolerance(reference: ModelSpec, candidate: ModelSpec) -> Tolerance:
    """What the less precise of the two is allowed."""
    ours, theirs = tolerance_of(reference), tolerance_of(candidate)
    return max(ours, theirs, key=lambda one: (one.max_logit_difference, -one.least_dice))


def _size(spec: ModelSpec) -> str:
    sizes = spec.input_sizes or ((spec.input_size,) if spec.input_size else ())
    return " or ".join(f"{height}x{width}" for height, width in sizes) or "any"
