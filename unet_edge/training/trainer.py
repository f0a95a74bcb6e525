"""The training loop."""

from __future__ import annotations

import math
import signal
import time
from contextlib import nullcontext
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch
from torch.utils.data import DataLoader

from unet_edge.checkpoint import save_checkpoint
from unet_edge.data.dataset import CACHE_BYTES, Collate, EpochBatches, SegmentationDataset
from unet_edge.device import prefers_channels_last
from unet_edge.evaluation import evaluate
from unet_edge.losses import segmentation_loss
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.errors import TrainingError
from unet_edge_runtime.segmenter import Segmenter

from .interrupt import Interrupt
from .reporter import Reporter
from .schedule import make_schedulers

if TYPE_CHECKING:
    from unet_edge.checkpoint import Checkpoint
    from unet_edge.data.split import Split
    from unet_edge.model import UNet
    from unet_edge_runtime.spec import ModelSpec

    from .config import TrainConfig
    from .run_folder import RunFolder

__all__ = ["Trainer"]

NORM_BATCHES = 50  # until then a running mean still holds its first value: 0.9**50 is half a percent of it
OVERLAYS = 4  # validation images drawn into the run's folder


class Trainer:
    """Trains one network in one run folder.

    Args:
        config: how.
        model: the network, with its first weights.
        spec: how images and masks are treated.
        split: what to train and to validate on.
        run: the folder.
        device: where.
        reporter: who is told.
    """

    def __init__(
        self,
        config: TrainConfig,
        model: UNet,
        spec: ModelSpec,
        split: Split,
        run: RunFolder,
        device: torch.device,
        reporter: Reporter | None = None,
    ) -> None:
        self.config, self.spec, self.split, self.run, self.device = config, spec, split, run, device
        self.reporter = reporter or Reporter()
        self.model = model.to(device)
        self.model.checkpointing = config.checkpointing
        self.layout = torch.channels_last if prefers_channels_last(device, training=True) else torch.contiguous_format
        self.model = self.model.to(memory_format=self.layout)  # type: ignore[call-overload]
        self.batches = EpochBatches(len(split.train), config.batch_size, config.seed)
        self.loader = self._make_loader()
        self.steps = config.epochs * len(self.batches)
        self.optimizer = torch.optim.RMSprop(
            self.model.parameters(),
            lr=config.learning_rate,
            weight_decay=config.weight_decay,
            momentum=config.momentum,
            foreach=True,
        )
        self.schedulers = make_schedulers(self.optimizer, config, self.steps)
        self.autocast, self.scaler = _precision(config.amp, device)
        self.epoch, self.batch, self.step = 1, 0, 0
        self.loss_sum = 0.0
        self.best: dict[str, Any] = {"dice": None, "epoch": 0}
        self.scores: dict[str, Any] = {}
        self.interrupt = Interrupt()

    def fit(self) -> dict[str, Any]:
        """Train to the last epoch.

        Returns:
            The scores of the best validation.

        Raises:
            TrainingError: the loss is no longer finite, or the run was interrupted (and saved).
            InputError: a file cannot be read.
        """
        with self.interrupt:
            if not self.run.last.exists():
                self.save_last()  # from here on there is always something to resume from
            while self.epoch <= self.config.epochs:
                self._train_epoch()
                self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
                self.save_last()
                self.run.draw_curves()
        return self.best

    def restore(self, checkpoint: Checkpoint) -> None:
        """Continue where a checkpoint's run stopped.

        Raises:
            TrainingError: the checkpoint holds no training state.
        """
        state = checkpoint.state
        try:
            self.model.load_state_dict(checkpoint.weights)
            self.optimizer.load_state_dict(state["optimizer"])
            if state["scaler"]:  # empty where the run was without a scaler, as on a CPU
                self.scaler.load_state_dict(state["scaler"])
            self.epoch, self.batch, self.step = state["epoch"], state["batch"], state["step"]
            self._restore_schedulers(state)
            self.loss_sum, self.best, self.scores = state["loss_sum"], state["best"], state["scores"]
            torch.set_rng_state(state["rng"]["cpu"])
            if self.device.type == "cuda" and state["rng"].get("cuda") is not None:
                torch.cuda.set_rng_state(state["rng"]["cuda"], self.device)
        except (KeyError, TypeError, ValueError, RuntimeError) as error:
            raise TrainingError(f"{checkpoint.path}: holds no training state ({error}): use it with --load") from None
        self.run.rewind_metrics(self.step)

    def save_last(self) -> None:
        """Write `last.pth` with everything that `restore` needs."""
        save_checkpoint(self.run.last, self.model, self._spec_with_scores(), self._state())

    def _train_epoch(self) -> None:
        self.batches.epoch, self.batches.start = self.epoch, self.batch
        left = len(self.split.train) - self.batch * self.config.batch_size
        count, every = len(self.batches), self.config.validations_per_epoch
        pauses = {round(count * part / every) for part in range(1, every)} - {0, count}
        started, done = time.monotonic(), 0
        with self.reporter.epoch(self.epoch, self.config.epochs, left):
            for images, labels in self.loader:
                self._train_step(images, labels)
                done += len(images)
                if self.batch in pauses:
                    self._validate()
                    self.save_last()
                if self.interrupt.requested and self.batch < count:
                    self._stop()
        record = {
            "event": "train",
            "epoch": self.epoch,
            "step": self.step,
            "loss": self.loss_sum / count,
            "learning_rate": self.optimizer.param_groups[0]["lr"],
            "images_per_second": done / (time.monotonic() - started),
        }
        self.run.append(record)
        self._validate()
        if self.interrupt.requested and self.epoch < self.config.epochs:
            self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0
            self._stop()

    def _train_mode(self) -> None:
        """Training mode; in the last part of the run with batch norm as it will be used: on its running statistics.

        On varied images and small batches a network otherwise learns to rely on each batch's own statistics, which
        a single image at prediction does not have.
        """
        self.model.train()
        if self.step >= max(self.steps * self.config.freeze_norm, NORM_BATCHES) and self.config.freeze_norm < 1:
            for module in self.model.modules():
                if isinstance(module, torch.nn.BatchNorm2d):
                    module.eval()

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        self._train_mode()
        images = images.to(self.device, memory_format=self.layout, non_blocking=True)
        labels = labels.to(self.device, non_blocking=True)
        try:
            value = self._backward(images, labels)
        except RuntimeError as error:
            if isinstance(error, torch.OutOfMemoryError) or "can't allocate memory" in str(error):
                raise TrainingError(self._out_of_memory()) from None
            raise
        self.scaler.unscale_(self.optimizer)
        torch.nn.utils.clip_grad_norm_(self.model.parameters(), self.config.gradient_clipping)
        rate = self.optimizer.param_groups[0]["lr"]
        self.scaler.step(self.optimizer)
        self.scaler.update()
        for name, scheduler in self.schedulers.items():
            if name != "plateau" and self.step + 1 < self.steps:
                scheduler.step()
        self.step, self.batch, self.loss_sum = self.step + 1, self.batch + 1, self.loss_sum + value
        self.reporter.step(len(images), value, rate)

    def _backward(self, images: torch.Tensor, labels: torch.Tensor) -> float:
        """Loss and gradients of a batch."""
        with self.autocast:
            logits = self.model(images)
        loss = segmentation_loss(logits, labels, self.config.pooled_dice)
        value = float(loss.detach())
        if not math.isfinite(value):
            self._fail(value)
        self.optimizer.zero_grad(set_to_none=True)
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]
        return value

    def _out_of_memory(self) -> str:
        return (
            f"out of memory in epoch {self.epoch}, step {self.step + 1}; {self.run.last} holds the last good state. "
            "Start a new run with a smaller --batch-size or --scale, or with --checkpointing"
        )

    def _validate(self) -> None:
        is_best = True
        if self.split.val:
            segmenter = Segmenter(TorchBackend.from_model(self.model, self.spec, self.device))
            matrix = evaluate(segmenter, self.reporter.validating(self.split.val))
            self.scores = matrix.summary(self.spec)
            dice = self.scores["dice"]
            is_best = self.best["dice"] is None or (dice is not None and dice > self.best["dice"])
            position = round(self.epoch - 1 + self.batch / len(self.batches), 3)
            self.run.append({"event": "validation", "epoch": position, "step": self.step, **self.scores})
            self.schedulers["plateau"].step(dice or 0.0)
        if is_best:
            self.best = {**self.scores, "dice": self.scores.get("dice"), "epoch": self.epoch}
            save_checkpoint(self.run.best, self.model, self._spec_with_scores(), self._state())
            if self.split.val:
                self.run.draw_overlays(segmenter, self.split.val[:OVERLAYS])
        if self.split.val:
            self.reporter.validation(self.epoch, self.scores, is_best)

    def _spec_with_scores(self) -> ModelSpec:
        training = {"epoch": self.epoch, "step": self.step, "recipe": self.config.recipe}
        scores = {"validation": self.scores} if self.scores else {}
        return self.spec.replace(provenance={**self.spec.provenance, "training": training, **scores})

    def _state(self) -> dict[str, Any]:
        cuda = torch.cuda.get_rng_state(self.device) if self.device.type == "cuda" else None
        return {
            "train_config": asdict(self.config),
            "epoch": self.epoch,
            "batch": self.batch,
            "step": self.step,
            "steps": self.steps,
            "loss_sum": self.loss_sum,
            "optimizer": self.optimizer.state_dict(),
            "schedulers": {name: scheduler.state_dict() for name, scheduler in self.schedulers.items()},
            "scaler": self.scaler.state_dict(),
            "rng": {"cpu": torch.get_rng_state(), "cuda": cuda},
            "scores": self.scores,
            "best": self.best,
        }

    def _make_loader(self) -> DataLoader[Any]:
        workers = self.config.workers
        room = CACHE_BYTES // max(1, workers)  # each process keeps its own
        dataset = SegmentationDataset(self.split.train, self.spec, self.config.flip, self.config.seed, room)
        return DataLoader(
            dataset,
            batch_sampler=self.batches,
            collate_fn=Collate(self.spec),
            num_workers=workers,
            persistent_workers=workers > 0,
            pin_memory=self.device.type == "cuda",
            worker_init_fn=_ignore_interrupts if workers else None,
        )

    def _restore_schedulers(self, state: dict[str, Any]) -> None:
        if state["steps"] != self.steps:
            # A run that was given more epochs: a cosine that has ended would rise again by itself.
            for group in self.optimizer.param_groups:
                group["lr"] = group["initial_lr"] = self.config.learning_rate
            self.schedulers = make_schedulers(self.optimizer, self.config, max(1, self.steps - self.step))
            return
        for name, scheduler in self.schedulers.items():
            scheduler.load_state_dict(state["schedulers"][name])

    def _fail(self, value: float) -> None:
        kept = [str(path) for path in (self.run.best, self.run.last) if path.exists()]
        raise TrainingError(
            f"the loss became {value} in epoch {self.epoch}, step {self.step + 1}. "
            f"Kept: {', '.join(kept) or 'nothing yet'}. Start a new run with a lower --learning-rate"
            + (" or without --amp" if self.config.amp else "")
            + (f", or from weights that are good: --load {self.run.best}" if self.run.best.exists() else "")
        )

    def _stop(self) -> None:
        self.save_last()
        self.run.draw_curves()
        raise TrainingError(
            f"interrupted in epoch {self.epoch}; everything is saved. Continue with: "
            f"unet-edge train --resume {self.run.path}"
        )


def _precision(amp: bool, device: torch.device) -> tuple[Any, torch.amp.GradScaler]:
    """fp16 with a gradient scaler on CUDA, bf16, which needs none, elsewhere."""
    if not amp:
        return nullcontext(), torch.amp.GradScaler(device.type, enabled=False)
    dtype = torch.float16 if device.type == "cuda" else torch.bfloat16
    return torch.autocast(device.type, dtype), torch.amp.GradScaler(device.type, enabled=device.type == "cuda")


def _ignore_interrupts(worker: int) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
