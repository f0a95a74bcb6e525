"""One training step: precision, micro-batches, and what happens when memory runs out."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, cast

import torch
from torch import Tensor, nn

from unet_edge.device import is_out_of_memory, prefers_channels_last
from unet_edge.model import CHECKPOINTING
from unet_edge_runtime.errors import TrainingError
from unet_edge_runtime.spec import IGNORE_LABEL

from .compiling import compile_failure, compiled
from .heap import keep_freed_memory
from .memory import Snapshot, fitting_policy, usable_memory
from .precision import resolve

if TYPE_CHECKING:
    from unet_edge.model import UNet

    from .config import TrainConfig

__all__ = ["Engine", "NonFiniteLoss", "StepResult"]

Loss = Callable[[Tensor, Tensor], Tensor]
GIB = 1 << 30
MOST_SKIPPED = 50  # steps in a row: by then gradient scaling has fallen from 2**16 below fp16's own resolution


@dataclass(frozen=True)
class StepResult:
    """What a step did.

    Attributes:
        loss: of the batch, before the step.
        skipped: the gradients were not finite, so the weights stayed as they were.
    """

    loss: float
    skipped: bool


class NonFiniteLoss(TrainingError):  # noqa: N818 - a state of the run that its trainer names
    """The loss is no number; the weights and batch norm's statistics are those from before the step.

    Args:
        value: the loss.
    """

    def __init__(self, value: float) -> None:
        self.value = value
        super().__init__(f"the loss became {value}: start a new run with a lower --learning-rate or --precision fp32")


class Engine:
    """Does the steps of a run.

    A batch is computed in `micro` parts (`config.accumulate` at first), whose gradients are added up. Each part is
    weighted with its share of the pixels that are not ignored, or of their class weights where the loss has an
    attribute `class_weights`: cross-entropy and focal loss are exactly those of the whole batch. Terms that are no
    mean over pixels, such as Dice, are means over the parts; batch norm normalises each part by itself and records
    each part once.

    When the device's memory does not suffice, the same batch is done again from the state before it: first with
    activation checkpointing of all blocks, then in twice as many parts, down to single images. Whatever helped
    stays. Among several processes it is an error, since the others already wait for this one's gradients; the launcher
    then ends them too.

    Args:
        model: the network; it is moved to the device, and its checkpointing policy governed.
        optimizer: of its parameters.
        loss_fn: (logits (N, K, H, W) fp32, labels (N, H, W)) -> scalar.
        config: accumulate, precision, checkpointing, compile and gradient_clipping are used.
        device: where.
        say: is told in one line about every decision that the user did not make.
        wrap: applied to the model once, for `DistributedDataParallel`.

    Raises:
        BackendError: the device cannot compute in the precision that was asked for.
    """

    def __init__(
        self,
        model: UNet,
        optimizer: torch.optim.Optimizer,
        loss_fn: Loss,
        config: TrainConfig,
        device: torch.device,
        say: Callable[[str], None] | None = None,
        wrap: Callable[[nn.Module], nn.Module] | None = None,
    ) -> None:
        self.optimizer, self.loss_fn, self.config, self.device = optimizer, loss_fn, config, device
        self.say = say or (lambda text: None)
        self.layout = torch.channels_last if prefers_channels_last(device, training=True) else torch.contiguous_format
        self.model: UNet = model.to(device).to(memory_format=self.layout)  # type: ignore[call-overload]
        self.precision = resolve(config.precision, device)
        if self.precision.note:
            self.say(self.precision.note)
        if device.type == "cpu":
            keep_freed_memory()
        self.micro, self.overflows, self.streak = config.accumulate, 0, 0
        self.undecided = config.checkpointing == "auto"  # until the first batch shows its size
        self.model.checkpointing = CHECKPOINTING[0] if self.undecided else config.checkpointing
        self.wrapped = wrap(self.model) if wrap else self.model
        self.forward = compiled(self.wrapped, self.say) if config.compile else self.wrapped

    def step(self, images: Tensor, labels: Tensor) -> StepResult:
        """Learn from a batch.

        Args:
            images: (N, C, H, W) float32.
            labels: (N, H, W) uint8 or int64.

        Raises:
            NonFiniteLoss: the loss is infinite or no number.
            TrainingError: memory does not suffice for single images either, or ran out in one of several processes.
        """
        images = images.to(self.device, memory_format=self.layout, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        if self.undecided:
            self._decide(images)
        before = Snapshot(self.model, self.device)
        while True:
            try:
                loss = self._gradients(images, labels)
                break
            except Exception as error:
                remedy = self._remedy(error, len(images))
                if remedy is None:
                    raise
            # Outside of the handler: the error's traceback holds the activations of the failed step.
            self.optimizer.zero_grad(set_to_none=True)
            before.put_back()
            self.say(remedy)
        try:
            return self._update(loss)
        except NonFiniteLoss:
            self.optimizer.zero_grad(set_to_none=True)
            before.put_back()
            raise

    def state(self) -> dict[str, Any]:
        """What `restore` needs to go on in the same way."""
        return {
            "scaler": self.precision.scaler.state_dict(),
            "overflows": self.overflows,
            "checkpointing": self.model.checkpointing,
            "undecided": self.undecided,
            "micro": self.micro,
        }

    def restore(self, state: dict[str, Any]) -> None:
        """Go on as the engine that gave this `state`.

        Raises:
            KeyError, TypeError: it is no such state.
        """
        if state["scaler"] and self.precision.scaler.is_enabled():
            self.precision.scaler.load_state_dict(state["scaler"])
        self.overflows, self.micro = int(state["overflows"]), int(state["micro"])
        self.model.checkpointing, self.undecided = str(state["checkpointing"]), bool(state["undecided"])

    def parts(self, size: int) -> int:
        """In how many parts a batch of so many images is computed: as many in all processes, which add up each part."""
        return _agreed(min(self.micro, size), "MIN", self.device) if self.micro > 1 else 1

    def _gradients(self, images: Tensor, labels: Tensor) -> Tensor:
        """Gradients of the batch, scaled, in place; the loss."""
        self.optimizer.zero_grad(set_to_none=True)
        parts = self.parts(len(images))
        pieces = list(zip(images.tensor_split(parts), labels.tensor_split(parts), strict=True))
        shares = self._shares([part for _, part in pieces])
        total = torch.zeros((), device=self.device)
        for number, ((image, label), share) in enumerate(zip(pieces, shares, strict=True), start=1):
            with contextlib.nullcontext() if number == parts else self._no_sync():
                with self.precision.autocast():
                    logits = self.forward(image)
                loss = self.loss_fn(logits.float(), label) * share
                self.precision.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
            total += loss.detach()
        return total

    def _shares(self, labels: list[Tensor]) -> list[Tensor]:
        """Of the pixels that count, over all processes."""
        if len(labels) == 1:
            return [torch.ones((), device=self.device)]
        counts = torch.stack([self._weight(part) for part in labels])
        if _processes() > 1:
            torch.distributed.all_reduce(counts)
        return list((counts / counts.sum()).nan_to_num().unbind())  # 0 / 0 where nothing counts

    def _weight(self, labels: Tensor) -> Tensor:
        """The sum of the pixels' class weights, by which cross-entropy divides; their number without such weights."""
        valid = labels != IGNORE_LABEL
        weights: Tensor | None = getattr(self.loss_fn, "class_weights", None)
        if weights is None:
            return valid.sum()
        return (weights.to(self.device)[labels.long().where(valid, 0)] * valid).sum()

    def _update(self, loss: Tensor) -> StepResult:
        """Change the weights, unless the gradients or the loss are not finite."""
        try:
            norm = self.precision.clip(self.optimizer, self.model.parameters(), self.config.gradient_clipping)
            # Both at once: a GPU has nothing to do while its answer is awaited.
            value, length = torch.stack([loss, norm]).tolist()
            skipped = not (math.isfinite(value) and math.isfinite(length))
            self.precision.change(self.optimizer, not skipped)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            raise TrainingError(
                "out of memory while the weights were updated, which smaller parts of a batch do not cure: "
                "resume on a device with more memory, or start a new run with a smaller network or --optimizer sgd"
            ) from None
        if not math.isfinite(value):
            raise NonFiniteLoss(value)
        self.overflows += skipped
        self.streak = self.streak + 1 if skipped else 0
        if self.streak >= MOST_SKIPPED:
            raise TrainingError(
                f"the gradients were not finite in {self.streak} steps in a row, so nothing is learnt any more: "
                "start a new run with --precision fp32 or a lower --learning-rate"
            )
        return StepResult(value, skipped)

    def _decide(self, images: Tensor) -> None:
        """Choose the checkpointing that fits, now that the size of a batch is known."""
        size, channels, height, width = images.shape
        shape = (math.ceil(size / self.micro), channels, height, width)
        room = usable_memory(self.device)
        policy = fitting_policy(self.model.config, shape, self.precision.bytes_per_value, room)
        # With synchronised norms a block that is computed twice meets the other processes twice.
        policy = CHECKPOINTING[_agreed(CHECKPOINTING.index(policy), "MAX", self.device)]
        if policy != CHECKPOINTING[0]:
            self.say(f"activation checkpointing: {policy}, to fit into {room / GIB:.1f} GiB of free memory")
        self.model.checkpointing, self.undecided = policy, False

    def _remedy(self, error: Exception, size: int) -> str | None:
        """Change what failed and tell it in a line; None where there is nothing to change.

        Raises:
            TrainingError: nothing is left to try.
        """
        complaint = compile_failure(error) if self.forward is not self.wrapped else None
        lacks_memory = is_out_of_memory(error)
        if complaint is None and not lacks_memory:
            return None
        if _processes() > 1:
            what, cure = "torch.compile fails", "without --compile"
            if lacks_memory:
                what, cure = (
                    "out of memory",
                    "with --checkpointing all, a larger --accumulate or a smaller --batch-size",
                )
            where = f"process {torch.distributed.get_rank()} of {_processes()}"
            raise TrainingError(f"{what} in {where}: start again {cure}") from None
        if lacks_memory:
            return self._save_memory(size)
        self.forward = self.wrapped
        return complaint

    def _save_memory(self, size: int) -> str:
        """The next thing that takes less memory for a batch of that size."""
        if self.model.checkpointing != CHECKPOINTING[-1]:
            self.model.checkpointing = CHECKPOINTING[-1]
            return "out of memory: the step is done again with activation checkpointing of all blocks, which stays"
        if self.micro >= size:
            raise TrainingError(
                f"out of memory on {self.device} even with activation checkpointing and one image at a time: "
                "start a new run with a smaller --scale, --crop or network, or --precision bf16"
            ) from None
        self.micro *= 2
        parts = min(self.micro, size)
        return f"out of memory: the step is done again in {parts} parts, the same batch to the optimizer; this stays"

    def _no_sync(self) -> contextlib.AbstractContextManager[object]:
        """Several processes add up their gradients once a step, at its last part."""
        wait = getattr(self.wrapped, "no_sync", contextlib.nullcontext)
        return cast("contextlib.AbstractContextManager[object]", wait())


def _agreed(value: int, operation: str, device: torch.device) -> int:
    """The smallest ("MIN") or largest ("MAX") of all processes' values: each part's loss is summed over all of them."""
    if _processes() == 1:
        return value
    shared = torch.tensor(value, device=device)
    torch.distributed.all_reduce(shared, getattr(torch.distributed.ReduceOp, operation))
    return int(shared)


def _processes() -> int:
    there = torch.distributed.is_available() and torch.distributed.is_initialized()
    return torch.distributed.get_world_size() if there else 1
