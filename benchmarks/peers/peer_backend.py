"""What the runners of other runtimes share: a model file with its spec beside it."""

from __future__ import annotations

import abc
from pathlib import Path
from typing import TYPE_CHECKING, ClassVar

import numpy as np

from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.spec import ModelSpec

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PeerBackend", "spec_file"]


def spec_file(model: Path) -> Path:
    """Where the spec of a converted model lies; the formats of most peers have no place for it."""
    return model.with_name(f"{model.name}.spec.json")


class PeerBackend(Backend):
    """A converted model in another runtime, one image at a time.

    Args:
        path: the converted model, with `spec_file(path)` beside it.
        threads: threads inside one image.

    Raises:
        ModelFileError: one of the two files is missing or damaged.
    """

    name: ClassVar[str] = "peer"

    def __init__(self, path: Path | str, threads: int = 1) -> None:
        self.path = Path(path)
        beside = spec_file(self.path)
        if not self.path.exists() or not beside.is_file():
            raise ModelFileError(f"{self.path}: not there, or {beside.name} is not: run benchmarks/peers/run.py again")
        self.spec = ModelSpec.from_json(beside.read_text(encoding="utf-8"), str(beside))
        self._open(threads)

    @abc.abstractmethod
    def _open(self, threads: int) -> None:
        """Load `self.path`, with the runtime's best settings for the latency of one image."""

    @abc.abstractmethod
    def _image(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        """(1, C, H, W) to (1, K, H, W), in memory that no later call writes to."""

    def _run(self, batch: NDArray[np.float32]) -> NDArray[np.generic]:
        if len(batch) == 1:
            return self._image(batch)
        return np.concatenate([self._image(image[None]) for image in batch])
