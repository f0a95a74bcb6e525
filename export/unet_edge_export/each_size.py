"""The comparison with PyTorch, for every input size that a package has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from unet_edge.model import UNet
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import Tolerance

from .images import CheckImages
from .parity import check_agreement

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["at_each_size", "check_each_size"]


def check_each_size(
    model: UNet, candidate: Backend, images: CheckImages, tolerance: Tolerance
) -> tuple[Agreement, Tolerance]:
    """`check_agreement` with every function of a package: each must agree; arguments and errors are the same.

    Returns:
        The agreement over all sizes, and the widest tolerance that applied.
    """
    found = [check_agreement(model, one, images, tolerance) for one in at_each_size(candidate)]
    total = Agreement(compared_logits=found[0][0].compared_logits)
    for agreement, _ in found:
        total.max_difference = max(total.max_difference, agreement.max_difference)
        total.pixels += agreement.pixels
        total.flipped += agreement.flipped
        total.images += agreement.images
        total.confusion.counts += agreement.confusion.counts
    return total, max((applied for _, applied in found), key=lambda applied: applied.max_logit_difference)


def at_each_size(backend: Backend) -> Iterator[Backend]:
    """The backend itself; or, for a package with several functions, one backend for each, which takes its size only.

    Where the image chooses the function, a comparison on a few images would leave functions out. Pictures of mask
    values are read back here, so that a comparison sees labels.
    """
    spec = backend.spec
    if not (spec.input_sizes or spec.label_values):
        yield backend
        return
    for size in spec.input_sizes or (spec.input_size,):
        yield _AtSize(backend, spec.replace(input_size=size, input_sizes=(), label_values=()))


class _AtSize(Backend):
    def __init__(self, backend: Backend, spec: ModelSpec) -> None:
        self.name = backend.name  # type: ignore[misc]
        self.path, self.spec = backend.path, spec
        self._backend = backend

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        return self._backend.run(batch)
