"""How much memory a step needs, when there was too little, and the way back to before it."""

from __future__ import annotations

import gc
import itertools
from collections.abc import Iterator
from contextlib import contextmanager

import torch

from unet_edge.data import resources
from unet_edge.device import is_out_of_memory
from unet_edge.model import CHECKPOINTING, UNet, UNetConfig
from unet_edge_runtime.errors import TrainingError

__all__ = [
    "Snapshot",
    "fitting_policy",
    "saved_bytes",
    "step_bytes",
    "told_when_full",
    "usable_memory",
]

Shape = tuple[int, int, int, int]

# Share of the free memory that a step may take. On a CPU the heap holds more than what is in use
# (benchmarks/MEMORY.md), and a lack of memory ends the process, where a GPU's can be cured.
SHARES = {"cpu": 0.65, "cuda": 0.9, "mps": 0.9}
LOSS_COPIES = 16  # fp32 tensors of the logits' size that a loss with its sorting holds at once
BACKWARD_LOGITS = 3  # of these while the network's gradients are computed
WORK_COPIES = 3  # of the largest activation, while a block's gradients are computed
WEIGHT_COPIES = 4  # gradients, two values of the optimizer's, one of work


class Snapshot:
    """What a forward pass changes: batch norm's statistics and the random state, as they are now.

    Args:
        model: the network.
        device: where it is.
    """

    def __init__(self, model: torch.nn.Module, device: torch.device) -> None:
        self.buffers = [(buffer, buffer.clone()) for buffer in model.buffers()]
        self.backend = None if device.type == "cpu" else getattr(torch, device.type)
        self.random = torch.get_rng_state()
        self.device_random = self.backend.get_rng_state() if self.backend else None

    def put_back(self) -> None:
        """Make everything what it was, and hand the memory of the failed pass back."""
        for buffer, value in self.buffers:
            buffer.copy_(value)
        torch.set_rng_state(self.random)
        gc.collect()
        if self.backend:
            self.backend.set_rng_state(self.device_random)
            self.backend.empty_cache()


def fitting_policy(config: UNetConfig, shape: Shape, bytes_per_value: int, room: int) -> str:
    """The fastest policy of activation checkpointing whose step fits.

    Args:
        config: the network.
        shape: (N, C, H, W) of a micro-batch.
        bytes_per_value: of activations: 4 for fp32, 2 for half precision.
        room: bytes that a step may take.

    Returns:
        One of `CHECKPOINTING`; the last one where none fits.
    """
    fits = (name for name in CHECKPOINTING if step_bytes(config, shape, name, bytes_per_value) <= room)
    return next(fits, CHECKPOINTING[-1])


def step_bytes(config: UNetConfig, shape: Shape, policy: str, bytes_per_value: int = 4) -> int:
    """An upper estimate of what one training step allocates beside the weights.

    What autograd keeps (measured by shapes alone, on torch's meta device), gradients, the optimizer's values, and
    the larger of two moments: the loss, and the backward pass of the largest block, computed a second time or not.

    Args:
        config: the network.
        shape: (N, C, H, W) of a micro-batch.
        policy: of activation checkpointing.
        bytes_per_value: of activations.
    """
    _, block, largest, weights = _measure(config, shape, "none")
    kept = _measure(config, shape, policy)[0]
    again = block if policy == "all" else 0  # the encoder's turn comes when the decoder's activations are gone
    logits = shape[0] * config.classes * shape[2] * shape[3] * 4
    in_loss = kept * bytes_per_value // 4 + LOSS_COPIES * logits
    in_backward = (kept + again + WORK_COPIES * largest) * bytes_per_value // 4 + BACKWARD_LOGITS * logits
    return max(in_loss, in_backward) + WEIGHT_COPIES * weights


@contextmanager
def told_when_full(device: torch.device) -> Iterator[None]:
    """Turns a lack of memory outside of a step into one line. Raises `TrainingError`."""
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise TrainingError(
            f"out of memory on {device}: end what else uses it, or take a smaller --batch-size, --scale or network"
        ) from None


def usable_memory(device: torch.device) -> int:
    """Bytes that a step may take on a device: a share of what is free there.

    On a CPU that is what the machine has and the control groups leave, in equal parts for the processes that
    `torchrun` started here.
    """
    return int(_free_memory(device) * SHARES[device.type])


def _free_memory(device: torch.device) -> int:
    if device.type == "cuda":
        free: int = torch.cuda.mem_get_info(device)[0]
        return free + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    if device.type == "mps":
        return max(0, torch.mps.recommended_max_memory() - torch.mps.driver_allocated_memory())
    return resources.free_memory() // resources.local_processes()


@contextmanager
def saved_bytes(model: torch.nn.Module) -> Iterator[dict[int, int]]:
    """Counts what autograd keeps for the backward pass of what runs inside, weights aside.

    Yields:
        Bytes by storage, so that tensors that share memory count once.
    """
    weights = {parameter.untyped_storage()._cdata for parameter in model.parameters()}
    storages: dict[int, int] = {}
    alive = []  # a freed storage's address would be used again

    def pack(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage._cdata not in weights:
            alive.append(storage)
            storages[storage._cdata] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        yield storages


def _measure(config: UNetConfig, shape: Shape, policy: str) -> tuple[int, int, int, int]:
    """Bytes in fp32: kept by autograd in all, inside the largest block; the largest block's output; the weights."""
    with torch.device("meta"):
        model, image = UNet(config, policy).train(), torch.empty(shape)
    blocks, outputs = [0], [0]
    with saved_bytes(model) as storages:

        def leave(module: torch.nn.Module, inputs: object, output: torch.Tensor) -> None:
            blocks.append(sum(storages.values()))
            outputs.append(output.untyped_storage().nbytes())

        for block in model.children():
            block.register_forward_hook(leave)
        model(image)
    inner = [after - before for before, after in itertools.pairwise(blocks)]
    weights = sum(4 * parameter.numel() for parameter in model.parameters())
    return blocks[-1], max(inner), max(outputs), weights
