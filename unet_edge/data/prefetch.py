"""The next batch travels to the GPU while it computes the present one."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from typing import Any, Protocol, TypeVar

import torch
from torch import Tensor

__all__ = ["prefetch"]

Batch = tuple[Tensor, Tensor]
Moving = TypeVar("Moving")


def prefetch(batches: Iterable[Batch], device: torch.device) -> Iterator[Batch]:
    """The same batches in the same order; on CUDA each is already there, copied while the one before was computed.

    The copy runs beside the computation only from pinned memory, as `make_loader` gives it. One batch is taken from
    `batches` ahead of the one that is handed out. Other devices get the batches as they are.

    Args:
        batches: images and labels.
        device: where they are needed.
    """
    return _ahead(batches, _CudaCopy(device)) if device.type == "cuda" else iter(batches)


class _Copy(Protocol[Moving]):
    def start(self, batch: Batch) -> Moving: ...
    def finish(self, moving: Moving) -> Batch: ...


def _ahead(batches: Iterable[Batch], copy: _Copy[Moving]) -> Iterator[Batch]:
    """Start the copy of a batch before the one before it is handed out."""
    moving: list[Moving] = []
    for batch in batches:
        moving.append(copy.start(batch))
        if len(moving) > 1:
            yield copy.finish(moving.pop(0))
    for last in moving:
        yield copy.finish(last)


@functools.cache
def _stream(device: torch.device) -> torch.cuda.Stream:
    """One for all epochs: the allocator keeps blocks for each stream that it has seen."""
    return torch.cuda.Stream(device)  # type: ignore[no-untyped-call]


class _CudaCopy:
    """Copies in a stream of its own.

    See https://docs.pytorch.org/docs/stable/notes/cuda.html#cuda-streams for the two calls that keep the streams
    from reading too early and from freeing too early.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self.stream = _stream(device)

    def start(self, batch: Batch) -> tuple[Batch, Any]:
        with torch.cuda.stream(self.stream):
            images, labels = (tensor.to(self.device, non_blocking=True) for tensor in batch)
            return (images, labels), self.stream.record_event()

    def finish(self, moving: tuple[Batch, Any]) -> Batch:
        batch, arrived = moving
        computing = torch.cuda.current_stream(self.device)
        computing.wait_event(arrived)
        for tensor in batch:
            tensor.record_stream(computing)
        return batch
