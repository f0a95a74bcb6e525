"""What a run needs to go on bit for bit: taken into a checkpoint, and put back."""

from __future__ import annotations

import dataclasses
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from unet_edge.checkpoint import save_checkpoint
from unet_edge_runtime.errors import TrainingError, UnetEdgeError

from .schedule import Schedule

if TYPE_CHECKING:
    from unet_edge.checkpoint import Checkpoint

    from .trainer import Trainer

__all__ = ["Progress", "restore", "save", "take"]


@dataclass
class Progress:
    """Where a run stands.

    Attributes:
        epoch: the one that is being trained, from 1.
        batch: batches done in it.
        step: batches done in all.
        loss_sum: of this epoch's batches.
        records: lines in the metrics file.
        scores: of the latest validation.
        best: scores of the best one, with `dice` and `epoch`.
        best_step: where it was; 0 before the first.
        since_best: validations since.
    """

    epoch: int = 1
    batch: int = 0
    step: int = 0
    loss_sum: float = 0.0
    records: int = 0
    scores: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Any] = field(default_factory=lambda: {"dice": None, "epoch": 0})
    best_step: int = 0
    since_best: int = 0

    def next_epoch(self) -> None:
        """Go to the beginning of the next epoch."""
        self.epoch, self.batch, self.loss_sum = self.epoch + 1, 0, 0.0


def take(trainer: Trainer) -> dict[str, Any]:
    """The training state: tensors and plain data, so that it loads with `weights_only=True`."""
    return {
        **asdict(trainer.progress),
        "train_config": asdict(trainer.config),
        "trackers": list(trainer.trackers),
        "processes": trainer.world.size,
        "optimizer": trainer.optimizer.state_dict(),
        "schedule": trainer.schedule.state_dict(),
        "engine": trainer.engine.state(),
        # The checkpoint's own weights are the averaged ones.
        "raw_weights": _contiguous(trainer.model.state_dict()) if trainer.ema else None,
        "rng": _rng(trainer.device),
    }


def save(trainer: Trainer, path: Path) -> None:
    """Write the trainer's network with everything that `restore` needs."""
    progress = trainer.progress
    training = {"epoch": progress.epoch, "step": progress.step, "recipe": trainer.config.recipe}
    scores = {"validation": progress.scores} if progress.scores else {}
    provenance = {**trainer.spec.provenance, "training": training, **scores}
    save_checkpoint(path, trainer.result, trainer.spec.replace(provenance=provenance), take(trainer))


def restore(trainer: Trainer, checkpoint: Checkpoint) -> None:
    """Put a checkpoint's weights and training state into a trainer that was made from the same configuration.

    Raises:
        TrainingError: the checkpoint holds no training state, or that of another version.
    """
    state = checkpoint.state
    try:
        trainer.progress = _progress(state)
        trainer.model.load_state_dict(state["raw_weights"] if trainer.ema else checkpoint.weights)
        if trainer.ema:
            trainer.ema.model.load_state_dict(checkpoint.weights)
        trainer.optimizer.load_state_dict(state["optimizer"])
        trainer.engine.restore(state["engine"])
        _restore_schedule(trainer, state)
        _restore_rng(state["rng"], trainer.device)
    except UnetEdgeError:
        raise
    # Whatever a state that is damaged or made by another version makes the parts stumble over.
    except Exception as error:
        raise TrainingError(
            f"{checkpoint.path}: holds no training state of this version ({type(error).__name__}: {error}): "
            "start a new run from its weights with --load"
        ) from None


def _progress(state: dict[str, Any]) -> Progress:
    values = {entry.name: state[entry.name] for entry in dataclasses.fields(Progress)}
    fresh = asdict(Progress())
    wrong = [name for name, value in values.items() if type(value) is not type(fresh[name])]
    if wrong:
        raise ValueError(f"{wrong[0]} is {values[wrong[0]]!r}")
    return Progress(**values)


def _restore_schedule(trainer: Trainer, state: dict[str, Any]) -> None:
    schedule, progress = trainer.schedule, trainer.progress
    schedule.load_state_dict(state["schedule"])
    if state["processes"] != trainer.world.size:
        # Steps are larger or smaller now: go on at about the same image.
        ratio = state["processes"] / trainer.world.size
        done, progress.batch = progress.batch, int(progress.batch * ratio)
        progress.loss_sum *= progress.batch / max(1, done)
        progress.step = (progress.epoch - 1) * len(trainer.batches) + progress.batch
        schedule.stretch(ratio)
    if state["train_config"]["epochs"] != trainer.config.epochs:
        # The learning rate starts a new course over what is left.
        trainer.schedule = Schedule(trainer.optimizer, trainer.config, max(1, trainer.steps - progress.step))
        progress.since_best = 0


def _rng(device: torch.device) -> dict[str, Any]:
    states = {"cpu": torch.get_rng_state()}
    if device.type == "cuda":
        states["cuda"] = torch.cuda.get_rng_state(device)
    elif device.type == "mps":
        states["mps"] = torch.mps.get_rng_state()
    return states


def _restore_rng(states: dict[str, Any], device: torch.device) -> None:
    torch.set_rng_state(states["cpu"])
    if device.type == "cuda" and "cuda" in states:
        torch.cuda.set_rng_state(states["cuda"], device)
    elif device.type == "mps" and "mps" in states:
        torch.mps.set_rng_state(states["mps"])


def _contiguous(weights: dict[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    return {name: value.contiguous() for name, value in weights.items()}
