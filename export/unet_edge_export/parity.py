"""The finished artefact against PyTorch, on images, through everything that prediction uses."""

from __future__ import annotations

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
from unet_edge_runtime.tolerance import Tolerance
from unet_edge_runtime.transform import postprocess

from .images import CheckImages, load

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["check_agreement", "compare"]


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
