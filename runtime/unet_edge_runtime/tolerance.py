"""How far two models' outputs may be apart before they no longer count as the same."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np

from .scores import Agreement
from .spec import ModelSpec

__all__ = [
    "FP16",
    "FP32",
    "LEAST_DICE",
    "TOLERANCES",
    "UNDECIDED",
    "LossTolerance",
    "Tolerance",
    "compression_name",
    "tolerance_of",
]

REFERENCE_MAGNITUDE = 10.0  # of the logits up to which a tolerance stands as written

UNDECIDED = "the outputs agree, so the network is undecided at those pixels: train it longer"


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from its reference.

    Attributes:
        max_logit_difference: largest absolute difference of two logits (or probabilities).
        equal_labels: least share of equal labels; one pixel may always differ, because a tie is no mismatch.
        least_dice: mean Dice over the classes that occur, the reference's labels being the truth.
    """

    max_logit_difference: float
    equal_labels: float
    least_dice: float = 0.0

    def at(self, magnitude: float) -> Tolerance:
        """The tolerance for outputs as large as `magnitude`.

        Rounding errors of floating point are relative, so above `REFERENCE_MAGNITUDE` the bound grows with the
        outputs; it never shrinks.
        """
        factor = max(1.0, magnitude / REFERENCE_MAGNITUDE)
        return replace(self, max_logit_difference=self.max_logit_difference * factor)

    def problems(self, agreement: Agreement) -> list[str]:
        """What exceeds the tolerance; empty when all is well. Infinite differences (NaN) always exceed it."""
        found = []
        difference = agreement.max_difference
        if agreement.compared_logits and (not difference <= self.max_logit_difference or np.isinf(difference)):
            found.append(
                f"largest difference {difference:.3g}, allowed {self.max_logit_difference:.3g}"
                + (" (NaN or infinite values)" if np.isinf(difference) else "")
            )
        allowed = max(1, round((1 - self.equal_labels) * agreement.pixels))
        if agreement.flipped > allowed or not agreement.pixels:
            found.append(f"{agreement.equal_labels:.5%} of the labels equal, required {100 * self.equal_labels:.9g}%")
            if agreement.compared_logits and agreement.pixels and not found[:-1]:
                found.append(UNDECIDED)
        dice = agreement.dice or 0.0
        if dice < self.least_dice:
            found.append(f"Dice {dice:.4f}, required {self.least_dice:g}")
        return found


FP32 = Tolerance(max_logit_difference=1e-4, equal_labels=0.99999)
"""Two fp32 runtimes differ by the order of their sums, a few units of the 24-bit significand: 1e-4 is about a
hundred of them at magnitude 10."""

FP16 = Tolerance(max_logit_difference=0.3, equal_labels=0.999)
"""Core ML's half precision: fp16 has 11 bits, so logits of 8 to 16 are stored in steps of 0.008, some twenty layers
round, and rounded weights shift whole channels. Measured with the reference interpreter on six packages of five
trained networks: 0.007 to 0.21 at magnitudes of 5 to 13, and 99.98 to 99.999 % equal labels. Reported of devices: up
to 0.1 (coremltools issue 1023)."""

BF16 = Tolerance(max_logit_difference=1.0, equal_labels=0.995)
"""PyTorch's autocast: bf16 has 8 bits, eight times coarser than fp16, though sums and the last steps stay in fp32.
Measured on two trained networks: 0.19 and 0.29 at magnitudes up to 13, 99.86 and 99.987 % equal labels."""

TOLERANCES = {"fp32": FP32, "fp16": FP16, "bf16": BF16}
TOLERANCE_AS = {"mixed": "fp16"}  # precision -> the one whose tolerance applies

# The bounds leave room for other networks than those measured (benchmarks/COMPRESSION.md): they catch a broken
# compression, not a slightly lossy one.
LEAST_DICE = {
    "int8": 0.98,
    "palette8": 0.98,
    "palette6": 0.97,
    "palette4": 0.85,
    "int4": 0.85,
    "sparse50": 0.90,
    "w8a8": 0.97,
}
"""Compression -> mean Dice over the classes that a package must keep, the reference's labels being the truth."""


@dataclass(frozen=True)
class LossTolerance(Tolerance):
    """How far a compressed artefact may be: its masks count, not its logits, which are meant to differ."""

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


def compression_name(spec: ModelSpec) -> str | None:
    """The compression that an artefact's provenance tells of, if it is one that we know."""
    told = spec.provenance.get("compression")
    name = str(told.get("name")) if isinstance(told, dict) else ""
    return name if name in LEAST_DICE else None


def tolerance_of(spec: ModelSpec) -> Tolerance:
    """What an artefact of this precision and compression is allowed; of an unknown precision, what fp32 is."""
    compression = compression_name(spec)
    if compression is None:
        return TOLERANCES.get(TOLERANCE_AS.get(spec.precision, spec.precision), FP32)
    return LossTolerance(least_dice=LEAST_DICE[compression])
