"""The finished artefact against PyTorch, on images, through everything that prediction uses."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unet_edge.model import UNet
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import AgreementError
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.segmenter import Segmenter
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import postprocess

from .images import CheckImages, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FP16", "FP32", "TOLERANCES", "Tolerance", "check_agreement", "compare"]

REFERENCE_MAGNITUDE = 10.0  # of the logits up to which a tolerance stands as written


@dataclass(frozen=True)
class Tolerance:
    """How far an artefact may be from PyTorch.

    Attributes:
        max_logit_difference: largest absolute difference of two logits (or probabilities).
        equal_labels: least share of equal labels; one pixel may always differ, because a tie is no mismatch.
    """

    max_logit_difference: float
    equal_labels: float

    def at(self, magnitude: float) -> Tolerance:
        """The tolerance for outputs as large as `magnitude`.

        Rounding errors of floating point are relative, so above `REFERENCE_MAGNITUDE` the bound grows with the
        outputs; it never shrinks.
        """
        factor = max(1.0, magnitude / REFERENCE_MAGNITUDE)
        return Tolerance(self.max_logit_difference * factor, self.equal_labels)

    def problems(self, agreement: Agreement) -> list[str]:
        """What exceeds the tolerance; empty when all is well. Infinite differences (NaN) always exceed it."""
        found = []
        if agreement.compared_logits and not agreement.max_difference <= self.max_logit_difference:
            found.append(
                f"largest difference {agreement.max_difference:.3g}, allowed {self.max_logit_difference:.3g}"
                + (" (NaN or infinite values)" if np.isinf(agreement.max_difference) else "")
            )
        allowed = max(1, round((1 - self.equal_labels) * agreement.pixels))
        if agreement.flipped > allowed or not agreement.pixels:
            found.append(f"{agreement.equal_labels:.5%} of the labels equal, required {self.equal_labels:.3%}")
            if agreement.compared_logits and agreement.pixels and not found[:-1]:
                found.append("the outputs agree, so the network is undecided at those pixels: train it longer")
        return found


FP32 = Tolerance(max_logit_difference=1e-4, equal_labels=0.99999)
"""Two fp32 runtimes differ by the order of their sums, a few units of the 24-bit significand: 1e-4 is about a
hundred of them at magnitude 10."""

FP16 = Tolerance(max_logit_difference=0.3, equal_labels=0.999)
"""Core ML's half precision: fp16 has 11 bits, so logits of 8 to 16 are stored in steps of 0.008, some twenty layers
round, and rounded weights shift whole channels. Measured with the reference interpreter on six packages of five
trained networks: 0.007 to 0.21 at magnitudes of 5 to 13, and 99.98 to 99.999 % equal labels. Reported of devices: up
to 0.1 (coremltools issue 1023)."""

TOLERANCES = {"fp32": FP32, "fp16": FP16}


class _Reference(Backend):
    """PyTorch behind an artefact's spec: the same size, padding, tiles and head, so both see the same tensors.

    The head is written again, in numpy: a mistake in the exported one must not hide itself.
    """

    name: ClassVar[str] = "torch"

    def __init__(self, model: UNet, spec: ModelSpec) -> None:
        self.spec, self.path = spec, Path("the checkpoint")
        self._torch = TorchBackend.from_model(model, spec.replace(head="logits"))

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        logits = self._torch.run(batch)
        if not np.isfinite(logits).all():
            raise AgreementError("the checkpoint itself returns NaN or infinite logits: export another one")
        if self.spec.head == "classmap":
            return np.stack([postprocess(one, self._torch.spec, one.shape[1:])[None] for one in logits])
        if self.spec.head == "probabilities":
            return _probabilities(logits)
        return logits


def compare(model: UNet, candidate: Backend, images: CheckImages) -> tuple[Agreement, float]:
    """Run both over the images.

    Args:
        model: the network in memory.
        candidate: the opened artefact; its spec is used for both.
        images: what to run.

    Returns:
        The agreement of outputs (at the network's size) and of labels (at the images' own size), and the largest
        magnitude among PyTorch's outputs.

    Raises:
        InputError: an image cannot be read.
        BackendError: the artefact's runtime failed.
    """
    spec = candidate.spec
    left, right = Segmenter(_Reference(model, spec)), Segmenter(candidate)
    agreement, magnitude = Agreement(), 0.0
    for image in images.images:
        pixels = load(image, spec)
        reference, other = left.segment(pixels), right.segment(pixels)
        output = None if spec.head == "classmap" else other.output
        agreement.add(reference.output, output, reference.labels, other.labels)
        magnitude = max(magnitude, float(np.abs(reference.output).max()))
    return agreement, magnitude


def check_agreement(
    model: UNet, candidate: Backend, images: CheckImages, tolerance: Tolerance
) -> tuple[Agreement, Tolerance]:
    """Compare, and insist on the tolerance.

    Returns:
        The agreement, and the tolerance as it applied to logits of this size.

    Raises:
        AgreementError: beyond the tolerance, with the numbers.
    """
    agreement, magnitude = compare(model, candidate, images)
    applied = tolerance.at(magnitude if candidate.spec.head == "logits" else 1.0)
    problems = applied.problems(agreement)
    if problems:
        raise AgreementError(
            f"the {candidate.name} artefact does not agree with PyTorch on {images.origin}: {'; '.join(problems)}. "
            "Nothing was written"
        )
    return agreement, applied


def _probabilities(logits: NDArray[np.float32]) -> NDArray[np.float32]:
    values = logits.astype(np.float64)
    if values.shape[1] == 1:
        return (1 / (1 + np.exp(-values))).astype(np.float32)
    powers = np.exp(values - values.max(axis=1, keepdims=True))
    return (powers / powers.sum(axis=1, keepdims=True)).astype(np.float32)
