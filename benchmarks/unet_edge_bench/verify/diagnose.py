"""Why a candidate does not agree, in the words of a person: each guess is tried before it is told."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from typing import TYPE_CHECKING

import numpy as np

from unet_edge_runtime.errors import InputError, MissingExtraError, UnetEdgeError
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.transform import postprocess, preprocess

from .inputs import HYPOTHESES
from .layerwise import layers_of
from .measurement import Measurement, measure
from .report import PairReport
from .sides import Model, Output
from .specs import mask_differences, reading_differences, treated_like, treatment_differences

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["diagnose"]

RESTORED_GAIN = 20.0  # dB of signal-to-noise ratio that an explanation has to win
RESTORED_SNR = 30.0  # dB that it has to reach

Guess = tuple[str, Output]
"""A sentence, and what the candidate would have returned if it is true."""

Quality = tuple[bool, float]
"""Whether a guess explains all, or nearly all; and how well, in dB, or as the share of equal labels."""


def diagnose(report: PairReport) -> list[str]:
    """Reasons for a failed comparison, the surest first; tried on the worst image where the candidate runs here.

    Args:
        report: of a pair that failed, with at least one image. Where layers are compared, `report.layers` is set.

    Returns:
        Sentences about the candidate; never none.
    """
    if any(report.measured["not_finite"].values()):
        return [_not_finite(report), *_layers(report)]
    if report.problems == mask_differences(report.reference.spec, report.candidate.spec):
        return ["the labels agree by number, and stand for other classes"]
    try:
        case = _Case(report)
        proven = (
            case.decided_otherwise()
            or case.first(case.same_treatment())
            or case.best([*case.other_inputs(), *case.other_order()])
        )
        if proven:
            return [proven]
        found = [*case.differences(), *_layers(report)] or list(filter(None, [case.best(case.other_gain())]))
    except UnetEdgeError as error:
        return [f"its cause was not found: {error}"]
    return [*found, *_flips(report)] or ["its cause was not found"]


class _Case:
    """The worst image of a pair that failed."""

    def __init__(self, report: PairReport) -> None:
        self.report, self.sample = report, report.images[0].sample
        self.reference, self.candidate = report.reference, report.candidate
        self.ours, self.theirs = self.reference.output(self.sample), self.candidate.output(self.sample)
        self.before = measure(self.reference, self.candidate, self.ours, self.theirs)
        model = self.candidate.model
        self.live = model if self.sample.image is not None else None

    def first(self, guesses: Iterable[Guess]) -> str:
        """The first sentence whose output agrees, or an empty one."""
        return next((_told(text, quality) for text, output in guesses if (quality := self._quality(output))), "")

    def best(self, guesses: Iterable[Guess]) -> str:
        """The sentence whose output agrees best, or an empty one where none does."""
        rated = [(self._quality(output), text) for text, output in guesses]
        agreeing = [(quality, text) for quality, text in rated if quality]
        quality, text = max(agreeing, key=lambda one: one[0], default=(None, ""))
        return _told(text, quality) if quality else ""

    def decided_otherwise(self) -> str:
        """Whether the outputs agree, and another threshold makes other labels of them."""
        ours, theirs = self.reference.spec, self.candidate.spec
        found = reading_differences(ours, theirs)
        if not found or self.theirs.size != self.ours.size:
            return ""
        labels = postprocess(self.theirs.values, theirs.replace(threshold=ours.threshold), self.theirs.size)
        agreement = Agreement()
        agreement.add(self.ours.values, None, self.reference.labels(self.ours), labels)
        agreement.max_difference = self.before.agreement.max_difference
        agreement.compared_logits = self.before.agreement.compared_logits
        what = "the outputs agree" if agreement.compared_logits else "by the reference's the labels agree"
        return "" if self.report.tolerance.problems(agreement) else f"it decides by {found[0]}; {what}"

    def same_treatment(self) -> Iterator[Guess]:
        """What the specs say is different: how images become network input."""
        ours, theirs = self.reference.spec, self.candidate.spec
        spec = treated_like(theirs, ours)
        if (found := treatment_differences(ours, theirs)) and spec is not None and self.live is not None:
            try:
                output = self.live.treating(spec).output(self.sample)
            except InputError:  # a class map's fixed size cannot hold the image at the reference's scale
                return
            yield f"it treats images with {', '.join(found)}; treated like the reference's they agree", output

    def other_inputs(self) -> Iterator[Guess]:
        """What it would have returned for input that is made in another way."""
        if self.live is None:
            return
        x = preprocess(self.sample.pixels(), self.live.spec)
        for hypothesis in HYPOTHESES:
            changed = hypothesis.change(x, self.live.spec)
            if changed is not None:
                text = f"{hypothesis.text}: it agrees when {hypothesis.when}"
                yield text, self.live.run(changed, self.theirs.size)

    def other_order(self) -> Iterator[Guess]:
        """Its outputs in the order, or with the sign, that is nearest to the reference's."""
        ours, theirs = self.ours.values, self.theirs.values
        if ours.shape != theirs.shape or self.candidate.spec.head == "classmap":
            return
        order = _closest(ours, theirs)
        if order is not None and order != list(range(len(ours))):
            names = self.reference.spec.class_names
            moved = [f"{names[i]} is its output {place}" for i, place in enumerate(order) if i != place]
            listed = ", ".join(moved[:3]) + (", ..." if len(moved) > 3 else "")
            yield f"its outputs are in another order: {listed}", Output(theirs[order], self.theirs.size)
        if self.candidate.spec.head == "logits":
            yield "its outputs have the other sign", Output(-theirs, self.theirs.size)

    def other_gain(self) -> Iterator[Guess]:
        """Its outputs, brought to the reference's size."""
        ours, theirs = self.ours.values, self.theirs.values
        if ours.shape != theirs.shape or self.candidate.spec.head != "logits":
            return
        signal = float(np.square(ours, dtype=np.float64).sum())
        gain = float((ours * theirs).sum(dtype=np.float64)) / signal if signal else 0.0
        if gain > 0:
            text = f"its outputs are {gain:.4g} times the reference's"
            yield text, Output(theirs / np.float32(gain), self.theirs.size)

    def differences(self) -> list[str]:
        """What the specs say, where it could not be tried or does not explain all."""
        found = treatment_differences(self.reference.spec, self.candidate.spec)
        return [f"it treats images with {', '.join(found)}"] if found else []

    def _quality(self, output: Output) -> Quality | None:
        """How well an output agrees; None where it would not have passed, nor come near it from far away."""
        after, tolerance = measure(self.reference, self.candidate, self.ours, output), self.report.tolerance
        passes = not tolerance.problems(after.agreement)
        helps = not passes and _near(self.before, after)
        if any(after.not_finite) or not (passes or helps):
            return None
        if passes and not tolerance.problems(self.before.agreement):
            return None  # this image tells nothing
        if after.identical:
            return passes, math.inf
        return passes, after.snr_db if after.snr_db is not None else after.agreement.equal_labels


def _told(text: str, quality: Quality) -> str:
    return text if quality[0] else f"{text} (nearly: something smaller differs as well)"


def _near(before: Measurement, after: Measurement) -> bool:
    if before.snr_db is None or after.snr_db is None:
        return False
    return after.snr_db >= max(RESTORED_SNR, before.snr_db + RESTORED_GAIN)


def _closest(ours: NDArray[np.float32], theirs: NDArray[np.float32]) -> list[int] | None:
    """For each of our planes the place of their closest one, if that is a permutation."""
    step = max(1, ours[0].size // 4096)
    left, right = (planes.reshape(len(planes), -1)[:, ::step] for planes in (ours, theirs))
    order = [int(np.abs(right - plane).mean(axis=1).argmin()) for plane in left]
    return order if sorted(order) == list(range(len(ours))) else None


def _not_finite(report: PairReport) -> str:
    parts = []
    for name, side in (("reference", report.reference), ("candidate", report.candidate)):
        count = sum(bool(image.measured["not_finite"][name]) for image in report.images)
        if count:
            half = ", which half precision does above 65504," if side.spec.precision != "fp32" else ""
            parts.append(f"the {name} overflowed{half} or has damaged weights: {count} of {len(report.images)} images")
    return "; ".join(parts)


def _layers(report: PairReport) -> list[str]:
    """What the comparison layer by layer says, where both models are here and its packages are installed."""
    if not isinstance(report.reference.model, Model) or not isinstance(report.candidate.model, Model):
        return []
    try:
        report.layers = report.layers or layers_of(report)
    except MissingExtraError:
        return []
    except UnetEdgeError as error:
        return [f"the layers could not be compared: {error}"]
    reason = report.layers.reason.rstrip(".")
    return [reason] if reason else []


def _flips(report: PairReport) -> list[str]:
    """How sure the reference was where labels differ, which separates rounding from damage."""
    flipped, flips = report.measured["flipped"], report.measured["flips"]
    if not flipped:
        return ["every label is the same; only the outputs are apart"]
    if not flips:
        return []
    if flips["sure"]:
        return [f"of the {flipped:,} flipped pixels, the reference was sure of {flips['sure']:,}"]
    return [f"labels flip only where the reference was undecided, at most {flips['margin_largest']:.3g} from a tie"]
