"""Batches for training, prepared ahead by worker processes, and how many of these make sense."""

from __future__ import annotations

import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from unet_edge_runtime.errors import InputError, TrainingError, UnetEdgeError

from .augment import Augmenter
from .dataset import Collate, Sample, SegmentationDataset
from .prepared import Preparation, open_store
from .resources import local_processes, usable_cores

if TYPE_CHECKING:
    from unet_edge.training.config import TrainConfig
    from unet_edge_runtime.spec import ModelSpec

    from .batches import EpochBatches, Key
    from .pairing import Pair

__all__ = ["Loader", "default_workers", "explained", "make_loader"]

_NO_SHARED_MEMORY = ("shared memory", "unable to resize file", "unable to write to file", "Bus error")
MOST_WORKERS = {"cuda": 8, "mps": 2}  # on macOS each is a new Python that imports torch and has its own cache


def make_loader(
    pairs: Sequence[Pair],
    spec: ModelSpec,
    config: TrainConfig,
    device: torch.device,
    batches: EpochBatches,
    on_worker: Callable[[int], None] | None = None,
) -> Loader:
    """The training images as batches: (N, C, H, W) float32 and labels (N, H, W) uint8.

    Args:
        pairs: the files.
        spec: how to treat them.
        config: workers, cache, flip, augment, crop, fast_decode and seed are used.
        device: where the batches will go; for CUDA they are put into pinned memory.
        batches: which items form which batch; its `epoch` and `start` count at each `iter`.
        on_worker: called with its number in each worker process when it starts.

    Raises:
        InputError: the disk cache cannot be written.
        MissingExtraError: augmentation is asked for and kornia is missing.
    """
    preparation = Preparation(pairs, spec, config.fast_decode)
    augmenter = Augmenter(spec, config.augment, config.flip, config.crop)
    store = open_store(config.cache, preparation, config.workers)
    dataset = SegmentationDataset(preparation, augmenter, config.seed, store)
    workers = config.workers
    return Loader(
        _Reporting(dataset),
        batch_sampler=batches,
        collate_fn=functools.partial(_collate, Collate(spec)),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        worker_init_fn=functools.partial(_start_worker, on_worker) if workers else None,
        multiprocessing_context=_start_method() if workers else None,
        # Without its own generator each `iter` would draw from the global one, and a run that was interrupted
        # within an epoch, which begins it twice, would go on with other numbers.
        generator=torch.Generator(),
    )


def default_workers(device: torch.device) -> int:
    """How many worker processes suit a device: none for a CPU, whose cores the network needs; else a core is left.

    Counts the cores that this process may use (affinity, limits of a container), divided among the processes that
    train on this machine.
    """
    if device.type not in MOST_WORKERS:
        return 0
    mine = usable_cores() // local_processes()
    return max(1, min(mine - 1, MOST_WORKERS[device.type]))


def explained(error: RuntimeError) -> Exception:
    """An error of torch about its workers in our words; any other error as it is.

    torch raises it wherever the main thread happens to be when a worker ends, so also between two batches.
    """
    text = str(error)
    if "DataLoader worker" not in text:
        return error
    if any(sign in text for sign in _NO_SHARED_MEMORY):
        return TrainingError(
            "there is too little shared memory for the workers' batches: give the container more "
            "(docker run --shm-size=2g), lower --batch-size, or use --workers 0"
        )
    if "Caught" in text:
        return error
    return TrainingError(
        "a worker that prepares images was killed, mostly because memory ran out: "
        "use fewer --workers or --cache disk, and continue with --resume"
    )


class Loader(DataLoader[Any]):
    """A `DataLoader` that says in one line what went wrong in a worker."""

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:  # type: ignore[override]
        """Raises `InputError` for a file that cannot be used and `TrainingError` for a worker that died."""
        batches = super().__iter__()
        while True:
            try:
                batch = next(batches)
            except StopIteration:
                return
            except RuntimeError as error:
                raise explained(error) from error
            if isinstance(batch, UnetEdgeError):
                raise batch
            yield batch


class _Reporting(Dataset[Any]):
    """Hands on an error of ours as an item: raised in a worker, it would come with a traceback as its text."""

    def __init__(self, dataset: SegmentationDataset) -> None:
        self.dataset = dataset

    def __len__(self) -> int:
        return len(self.dataset)

    def __getitem__(self, key: Key) -> Sample | InputError:
        try:
            return self.dataset[key]
        except InputError as error:
            return InputError(str(error))


def _collate(collate: Collate, samples: list[Any]) -> tuple[Tensor, Tensor] | InputError:
    for sample in samples:
        if isinstance(sample, InputError):
            return sample
    images, labels = collate(samples)
    if get_worker_info():
        # Here a lack of shared memory is an error; in the queue's own thread, later, the batch would only be lost.
        images.share_memory_(), labels.share_memory_()  # type: ignore[no-untyped-call]
    return images, labels


def _start_worker(on_worker: Callable[[int], None] | None, number: int) -> None:
    """Ctrl-C and signals to a process group are for the training loop, which ends its workers when it stops."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if hasattr(os, "setpgid"):  # not on Windows
        os.setpgid(0, 0)
    if on_worker:
        on_worker(number)


def _start_method() -> str | None:
    """On Linux fork: it starts at once and shares the memory cache. Elsewhere what Python holds for safe."""
    return "fork" if sys.platform == "linux" and "fork" in multiprocessing.get_all_start_methods() else None
