"""One command in several processes, on one machine or on several."""

from __future__ import annotations

import functools
import gc
import itertools
import os
from collections.abc import Callable
from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any, TypeVar, cast

from unet_edge_runtime.errors import BackendError, InputError, TrainingError, UnetEdgeError

if TYPE_CHECKING:
    import numpy as np
    import torch
    from numpy.typing import NDArray

__all__ = ["PeerLostError", "World", "current"]

T = TypeVar("T")

MEETING = timedelta(minutes=5)  # until every process has started and imported torch
PATIENCE = timedelta(minutes=30)  # for each other, as while the writer checks a large data set
_meetings = itertools.count()  # of this process: several runs, as of the folds of a cross-validation, follow each other
VARIABLES = ("RANK", "WORLD_SIZE", "LOCAL_RANK")


class PeerLostError(TrainingError):
    """Another process ended or cannot be reached; its own error is the one to look for."""


@dataclass(frozen=True)
class World:
    """The processes of a command; one process alone needs nothing of what is here, and no torch.distributed.

    Used as `with current().join(device) as world:`, which always leaves the group at the end. The process of rank 0 is
    the writer: it alone writes files, prints and tracks.

    Attributes:
        rank: of this process, 0..size - 1.
        size: number of processes.
        local_rank: rank among the processes of this machine, which is the number of its GPU.
        restarts: how often torch's elastic agent has started the processes again.
    """

    rank: int = 0
    size: int = 1
    local_rank: int = 0
    restarts: int = 0

    @property
    def is_writer(self) -> bool:
        """Whether this process writes files, prints and tracks."""
        return self.rank == 0

    @property
    def again(self) -> str:
        """What follows `unet-edge train --resume RUN` to start as many processes; nothing for one."""
        if self.size == 1:
            return ""
        here = os.environ.get("LOCAL_WORLD_SIZE") == str(self.size)
        return f" --nproc {self.size}" if here else " (under torchrun, as before)"

    def device(self, device: torch.device) -> torch.device:
        """The device of this process: on CUDA one GPU each.

        Raises:
            BackendError: more processes than GPUs, or a device that several processes cannot share.
        """
        if self.size == 1 or device.type == "cpu":
            return device
        import torch

        if device.type != "cuda":
            raise BackendError(f"several processes work on CUDA or on the CPU, not on {device.type}: --device cpu")
        if self.local_rank >= torch.cuda.device_count():
            raise BackendError(
                f"process {self.local_rank + 1} of this machine has no GPU: there are {torch.cuda.device_count()}; "
                "start that many processes, or give --device cpu"
            )
        return torch.device("cuda", self.local_rank)

    def join(self, device: torch.device | None = None, meeting: timedelta = MEETING) -> World:
        """Meet the other processes, by nccl on CUDA and by gloo elsewhere.

        Args:
            device: as `device` gives it; None where no tensors of a network travel, only results.
            meeting: how long to wait for the others.

        Raises:
            PeerLostError: they cannot be reached.
        """
        if self.size == 1:
            return self
        import torch
        from torch import distributed
        from torch.distributed import distributed_c10d

        backend = "gloo"
        if device is not None and device.type == "cuda":
            backend = "nccl"
            torch.cuda.set_device(device)
        try:
            store = _store(self.rank, self.size, meeting)
            # It outlives a restart and a run, and would give the addresses of connections that are gone.
            store = distributed_c10d.PrefixStore(f"{self.restarts}/{next(_meetings)}", store)
            distributed.init_process_group(backend, store=store, rank=self.rank, world_size=self.size, timeout=PATIENCE)
        except (RuntimeError, ValueError) as error:
            address = ":".join(os.environ.get(name, "?") for name in ("MASTER_ADDR", "MASTER_PORT"))
            raise PeerLostError(
                f"process {self.rank} of 0..{self.size - 1} cannot meet the others at {address} "
                f"({_first_line(error)}): start all of them with torchrun or --nproc, and let that port through"
            ) from None
        return self

    def close(self) -> None:
        """Leave the group."""
        if self.size > 1:
            from torch import distributed

            if distributed.is_initialized():
                gc.collect()  # what holds the group in a cycle and is freed later, with the GIL held, can hang
                distributed.destroy_process_group()

    def __enter__(self) -> World:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, traceback: Any) -> None:
        try:
            if error is None:
                self.barrier()  # the writer's last files are there, and it needs nobody any more
            elif self.size > 1 and _is_lost_peer(error):
                raise PeerLostError(
                    f"process {self.rank} of 0..{self.size - 1} lost the others ({_first_line(error)}): one of them "
                    "ended, and its own message says why. A training continues from its last checkpoint with --resume"
                ) from None
        finally:
            # After an error nccl's shutdown would wait for processes that wait for this one.
            if error is None or self._engine() != "nccl":
                self.close()

    def _engine(self) -> str:
        if self.size == 1:
            return ""
        from torch import distributed

        return str(distributed.get_backend()) if distributed.is_initialized() else ""

    def reduce_sum(self, tensor: torch.Tensor) -> torch.Tensor:
        """The sum over all processes, with its gradient.

        A loss made of such sums is the same number L in every process. Backward, the gradients of all processes are
        summed too, so each one holds its own part of the gradient of size * L; DistributedDataParallel takes the mean
        over the processes, and what arrives is exactly the gradient of L over the joined batch.
        """
        if self.size == 1:
            return tensor
        from .sync_norm import Sum

        summed: torch.Tensor = Sum.apply(tensor)  # type: ignore[no-untyped-call]
        return summed

    def all_sum(self, array: NDArray[np.int64]) -> NDArray[np.int64]:
        """The sum of integers over all processes: exact, whatever the order."""
        if self.size == 1:
            return array
        import torch
        from torch import distributed

        # Where nccl is the backend, only tensors of the GPU travel.
        device = "cuda" if distributed.get_backend() == "nccl" else "cpu"
        tensor = torch.from_numpy(array).to(device, copy=True)
        distributed.all_reduce(tensor)
        summed: NDArray[np.int64] = tensor.cpu().numpy()
        return summed

    def any(self, flag: bool) -> bool:
        """Whether it is true in at least one process, as an interrupt is, so that all of them stop together."""
        if self.size == 1:
            return flag
        import numpy as np

        return bool(self.all_sum(np.array([flag], np.int64))[0])

    def from_writer(self, make: Callable[[], T]) -> T:
        """What the writer makes, in every process; nobody else calls `make`.

        Raises:
            UnetEdgeError: what `make` raised in the writer, in every process.
        """
        if self.size == 1:
            return make()
        from torch import distributed

        made: list[Any] = [None, None, None]
        if self.is_writer:
            try:
                made[0] = make()
            except UnetEdgeError as error:
                made = [None, type(error), str(error)]
        distributed.broadcast_object_list(made, src=0)
        result, kind, message = made
        if kind:
            # An error is made of other things than its message, so pickle would make another one.
            raise kind.__new__(kind, message)
        return cast("T", result)

    def gather(self, value: T) -> list[T]:
        """What every process brings, by rank, in the writer; an empty list elsewhere."""
        if self.size == 1:
            return [value]
        from torch import distributed

        brought: list[Any] | None = [None] * self.size if self.is_writer else None
        distributed.gather_object(value, brought, dst=0)
        return brought or []

    def barrier(self) -> None:
        """Wait for all processes."""
        self.any(False)

    def share(self, module: torch.nn.Module) -> None:
        """Give every process the writer's running statistics of batch norm, to which each has added its own batches.

        Weights are equal already: all processes change them by the same gradients.
        """
        if self.size > 1:
            from torch import distributed

            for buffer in module.buffers():
                distributed.broadcast(buffer, src=0)

    def wrap(self, model: torch.nn.Module, sync_norm: bool = False) -> torch.nn.Module:
        """DistributedDataParallel around a model on this process's device; a model alone in the world stays as it is.

        Args:
            model: its weights become the writer's; its state dict keeps its keys.
            sync_norm: batch norm over the batches of all processes together instead of each on its own.
        """
        if self.size == 1:
            return model
        from torch.nn.parallel import DistributedDataParallel

        from .sync_norm import synchronise_norms

        if sync_norm:
            synchronise_norms(model)
        device = next(model.parameters()).device
        return DistributedDataParallel(model, device_ids=[device] if device.type == "cuda" else None)


def current() -> World:
    """The world that torchrun (or `--nproc`) says this process is in; otherwise a world of one.

    Raises:
        InputError: torchrun's variables are incomplete or contradict each other.
    """
    found = {name: os.environ[name] for name in VARIABLES if name in os.environ}
    if "RANK" not in found or "WORLD_SIZE" not in found:
        return World()
    told = ", ".join(f"{name}={value}" for name, value in found.items())
    try:
        rank, size = int(found["RANK"]), int(found["WORLD_SIZE"])
        world = World(rank, size, int(found["LOCAL_RANK"]) if size > 1 else 0, _restarts())
    except (KeyError, ValueError):
        raise InputError(
            f"the environment has {told}: start with torchrun, which sets {', '.join(VARIABLES)}"
        ) from None
    if not (0 <= world.rank < world.size and 0 <= world.local_rank <= world.rank):
        raise InputError(f"the environment has {told}, which fits no process: start with torchrun, or unset them")
    return world


@functools.cache
def _store(rank: int, size: int, meeting: timedelta) -> Any:
    """Where the processes find each other; kept, since the others may still use what closes with rank 0's."""
    from torch.distributed.rendezvous import rendezvous

    store = next(rendezvous("env://", rank, size, timeout=meeting))[0]
    store.set_timeout(PATIENCE)
    return store


def _restarts() -> int:
    return int(os.environ.get("TORCHELASTIC_RESTART_COUNT", "0"))


def _is_lost_peer(error: BaseException) -> bool:
    from torch import distributed

    # gloo has no class of its own; its messages carry the source file that they come from.
    return isinstance(error, distributed.DistError) or (isinstance(error, RuntimeError) and "gloo" in str(error))


def _first_line(error: BaseException) -> str:
    return (str(error).splitlines() or [type(error).__name__])[0].strip()
