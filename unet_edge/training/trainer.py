"""The training loop."""

from __future__ import annotations

import time
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

import torch

from unet_edge.data.batches import EpochBatches
from unet_edge.data.loader import explained, make_loader
from unet_edge.data.prefetch import prefetch
from unet_edge.losses import make_loss
from unet_edge_runtime.errors import TrainingError

from . import state
from .config import parse_class_weights
from .determinism import deterministic_algorithms, no_deterministic_way
from .distributed import World
from .ema import Ema
from .engine import Engine, NonFiniteLoss
from .interrupt import Interrupt
from .memory import told_when_full
from .norm_statistics import NormStatistics
from .optimizers import make_optimizer
from .reporter import Reporter
from .schedule import Schedule, train_mode
from .tracking import Tracker, open_tracker
from .usage import peak_memory
from .validation import score, show

if TYPE_CHECKING:
    from unet_edge.data.split import Split
    from unet_edge.model import UNet
    from unet_edge_runtime.spec import ModelSpec

    from .config import TrainConfig
    from .run_folder import RunFolder

__all__ = ["Trainer"]

WORTH_SAVING = 60  # seconds of training that a validation must not put at risk
NORM_BATCHES = 50  # until then a running mean still holds its first value: 0.9**50 is half a percent of it


class Trainer:
    """Trains one network in one run folder.

    Among several processes each has its own trainer, and that of rank 0 writes.

    Args:
        config: how.
        model: the network, with its first weights.
        spec: how images and masks are treated.
        split: what to train and to validate on.
        run: the folder.
        device: where.
        reporter: who is told.
        world: the processes that train together, met already; this one alone by default.
        trackers: where the course is recorded, of `tracking.TRACKERS`.

    Raises:
        InputError: the configuration does not fit the network or the data.
        BackendError: it does not fit the device.
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
        world: World | None = None,
        trackers: tuple[str, ...] = (),
    ) -> None:
        self.config, self.spec, self.split, self.run, self.device = config, spec, split, run, device
        self.reporter, self.world, self.trackers = reporter or Reporter(), world or World(), trackers
        self.model = model.to(device)
        ranks = self.world.rank, self.world.size
        self.batches = EpochBatches(len(split.train), config.batch_size, config.seed, *ranks)
        self.loader = make_loader(split.train, spec, config, device, self.batches)
        self.steps = config.epochs * len(self.batches)
        self.optimizer = make_optimizer(self.model, config)
        self.schedule = Schedule(self.optimizer, config, self.steps)
        loss = make_loss(config.loss, parse_class_weights(config.class_weights), self.world.reduce_sum)
        self.engine = Engine(self.model, self.optimizer, loss, config, device, self.reporter.note, self._wrap)
        self.ema = Ema(self.model, config.ema) if config.ema else None
        self.norms = NormStatistics(split, spec, config, self.engine, self.world) if config.norm_images else None
        self.progress = state.Progress()
        self.interrupt = Interrupt()
        self.tracker = Tracker([], self.reporter.note)
        self._mode: bool | None = None  # whether the network is in training mode with frozen norms; None: in neither
        self._rate, self._saved_step, self._saved_time = 0.0, 0, time.monotonic()

    @property
    def result(self) -> UNet:
        """The network that is validated and kept: with averaged weights, where there are such."""
        return self.ema.model if self.ema else self.model

    @property
    def finished(self) -> bool:
        """Whether all epochs are done, or the Dice has not risen for too long."""
        # Only between epochs: the rest of one may bring a better Dice, and a resumed run ends where the whole one does.
        stopped = self.progress.batch == 0 and 0 < self.config.early_stop <= self.progress.since_best
        return self.progress.epoch > self.config.epochs or stopped

    @property
    def norms_frozen(self) -> bool:
        """Whether batch norm trains on its running statistics by now."""
        freeze = self.config.freeze_norm
        return freeze < 1 and self.progress.step >= max(self.steps * freeze, NORM_BATCHES)

    def fit(self) -> dict[str, Any]:
        """Train to the last epoch.

        Returns:
            The scores of the best validation.

        Raises:
            TrainingError: the loss is no longer finite, or the run was interrupted (and saved).
            InputError: a file cannot be read.
        """
        made_of = {"training": asdict(self.config), "model": asdict(self.model.config)}
        names = self.trackers if self.world.is_writer else ()
        start, say = self.progress.step, self.reporter.note
        with (
            self.interrupt,
            deterministic_algorithms(self.config.deterministic),
            open_tracker(names, self.run.path, made_of, start, say) as self.tracker,
        ):
            if not start:
                self.save_last()  # from here on there is always something to resume from
            self._saved_step, self._saved_time = start, time.monotonic()
            self._train_epochs()
            if self.progress.step == start:
                self._draw_curves()  # a run that was killed at its very end
            if self.progress.epoch <= self.config.epochs:
                say(f"stopped early: no better Dice in {self.progress.since_best} validations")
        return self.progress.best

    def _train_epochs(self) -> None:
        try:
            with told_when_full(self.device):
                while not self.finished:
                    self._train_epoch()
        except RuntimeError as error:  # where torch says that a worker has ended
            if (known := explained(error)) is error:
                raise
            raise known from None

    def save_last(self) -> None:
        """Write `last.pth` with everything that `state.restore` needs, and make its best checkpoint the best one."""
        self._saved_step, self._saved_time = self.progress.step, time.monotonic()
        if self.world.is_writer:
            state.save(self, self.run.last)
            self.run.commit_best(self.progress.best_step)

    def _train_epoch(self) -> None:
        progress = self.progress
        if progress.batch < len(self.batches):  # otherwise the run ended while it validated
            self._learn()
            if time.monotonic() - self._saved_time > WORTH_SAVING:
                self.save_last()
        self._validate()
        progress.next_epoch()
        self.save_last()
        self._draw_curves()
        if self.world.any(self.interrupt.requested) and not self.finished:
            self._stop()

    def _learn(self) -> None:
        """The epoch's batches, or what is left of them."""
        progress = self.progress
        self.batches.epoch, self.batches.start = progress.epoch, progress.batch
        whole = len(self.split.train)
        left = max(0, whole - progress.batch * self.config.batch_size * self.world.size)
        seconds, done = 0.0, 0
        before = progress.batch, progress.loss_sum
        with self.reporter.epoch(progress.epoch, self.config.epochs, left, whole, before):
            mark = time.monotonic()
            for images, labels in prefetch(self.loader, self.device):
                self._train_step(images, labels)
                seconds, done = seconds + time.monotonic() - mark, done + len(images) * self.world.size
                self._between_steps()
                mark = time.monotonic()
        self._record_epoch(done / max(seconds, 1e-9))

    def _train_step(self, images: torch.Tensor, labels: torch.Tensor) -> None:
        progress = self.progress
        if self._mode != self.norms_frozen:
            self._mode = self.norms_frozen
            train_mode(self.model, self._mode)
        self._rate = self.schedule.rate
        try:
            loss = self.engine.step(images, labels).loss
        except NonFiniteLoss as error:
            raise TrainingError(self._non_finite(error.value)) from None
        except RuntimeError as error:
            if not self.config.deterministic or "deterministic" not in str(error):
                raise
            raise TrainingError(no_deterministic_way(error, self.device)) from None
        except TrainingError as error:
            where = f"epoch {progress.epoch}, step {progress.step + 1}"
            raise TrainingError(f"{error} ({where}; {self.run.last} holds the last good state)") from None
        self.schedule.step()
        progress.step, progress.batch = progress.step + 1, progress.batch + 1
        progress.loss_sum += loss
        if self.ema:
            self.ema.update(progress.step)
        self.reporter.step(len(images) * self.world.size, loss, self._rate, progress.scores.get("dice"))
        scalars = {"train/loss": loss, "train/learning_rate": self._rate, "train/overflows": self.engine.overflows}
        self.tracker.scalars(progress.step, scalars)

    def _between_steps(self) -> None:
        """Validate, save, or stop, where it is time to; the end of an epoch does so by itself."""
        count, every = len(self.batches), self.config.validations_per_epoch
        if self.progress.batch == count:
            return
        if self.progress.batch in {round(count * part / every) for part in range(1, every)}:
            self._validate()
            self.save_last()  # never before: a resumed run would go on behind this validation
        elif self._is_time_to_save():
            self.save_last()
        if self.world.any(self.interrupt.requested):
            self._stop()

    def _is_time_to_save(self) -> bool:
        steps, minutes = self.config.save_steps, self.config.save_minutes
        by_steps = 0 < steps <= self.progress.step - self._saved_step
        return by_steps or 0 < minutes * 60 <= time.monotonic() - self._saved_time

    def _record_epoch(self, images_per_second: float) -> None:
        progress = self.progress
        self._record(
            {
                "event": "train",
                "epoch": progress.epoch,
                "step": progress.step,
                "loss": progress.loss_sum / len(self.batches),
                "learning_rate": self._rate,
                "overflows": self.engine.overflows,
                "images_per_second": images_per_second,
                "memory_bytes": peak_memory(self.device),
            }
        )
        self.tracker.scalars(progress.step, {"train/images_per_second": images_per_second})

    def _validate(self) -> None:
        progress, is_best, segmenter = self.progress, True, None
        self._mode = None
        if self.norms and not self.norms_frozen and progress.step < self.norms.until:
            self.norms.estimate(self.result, progress.epoch)
        if self.split.val:
            segmenter, scores = score(self)
            before, dice = progress.best["dice"], scores["dice"]
            is_best = before is None or (dice is not None and dice > before)
            progress.scores = scores
            self.schedule.validated(dice or 0.0)
            position = round(progress.epoch - 1 + progress.batch / len(self.batches), 3)
            self._record({"event": "validation", "epoch": position, "step": progress.step, **scores})
            self.reporter.validation(progress.epoch, scores, is_best)
        progress.since_best = 0 if is_best else progress.since_best + 1
        if is_best:
            progress.best = {**progress.scores, "dice": progress.scores.get("dice"), "epoch": progress.epoch}
            progress.best_step = progress.step
        if self.world.is_writer and segmenter:
            show(self, segmenter, is_best)
        if self.world.is_writer and is_best:
            state.save(self, self.run.pending_best(progress.step))  # `save_last` commits it

    def _record(self, record: dict[str, Any]) -> None:
        self.progress.records += 1
        if self.world.is_writer:
            self.run.append(record)

    def _draw_curves(self) -> None:
        if self.world.is_writer:
            self.run.draw_curves()

    def _wrap(self, model: torch.nn.Module) -> torch.nn.Module:
        return self.world.wrap(model, self.config.sync_norm)

    def _non_finite(self, value: float) -> str:
        kept = [str(path) for path in (self.run.best, self.run.last) if path.exists()]
        return (
            f"the loss became {value} in epoch {self.progress.epoch}, step {self.progress.step + 1}. "
            f"Kept: {', '.join(kept) or 'nothing yet'}. Start a new run with a lower --learning-rate"
            + (" or --precision fp32" if self.engine.precision.name != "fp32" else "")
            + (f", or from weights that are good: --load {self.run.best}" if self.run.best.exists() else "")
        )

    def _stop(self) -> None:
        if self._saved_step != self.progress.step:
            self.save_last()
        self._draw_curves()
        raise TrainingError(
            f"interrupted in epoch {self.progress.epoch}; everything is saved. Continue with: "
            f"unet-edge train --resume {self.run.path}{self.world.again}"
        )
