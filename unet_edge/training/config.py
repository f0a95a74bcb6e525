"""What a training run is made of."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from unet_edge.losses import check_loss
from unet_edge_runtime.errors import InputError

from .recipes import RECIPES

__all__ = [
    "AUGMENTS",
    "CACHES",
    "CHECKPOINTINGS",
    "DECAYS",
    "FLIPS",
    "OPTIMIZERS",
    "PRECISIONS",
    "RECIPES",
    "TrainConfig",
    "parse_class_weights",
    "parse_save_every",
]

OPTIMIZERS = ("rmsprop", "adamw", "sgd")
DECAYS = ("none", "cosine", "linear", "poly")
AUGMENTS = ("none", "light", "strong")
FLIPS = ("none", "horizontal", "both")
PRECISIONS = ("auto", "fp32", "bf16", "fp16")
CHECKPOINTINGS = ("none", "encoder", "all", "auto")
CACHES = ("memory", "disk", "none")

CHOICES = {
    "optimizer": OPTIMIZERS,
    "decay": DECAYS,
    "augment": AUGMENTS,
    "flip": FLIPS,
    "precision": PRECISIONS,
    "checkpointing": CHECKPOINTINGS,
    "cache": CACHES,
}
POSITIVE = (
    "epochs",
    "batch_size",
    "accumulate",
    "learning_rate",
    "gradient_clipping",
    "patience",
    "validations_per_epoch",
)
BELOW = {"weight_decay": 1, "momentum": 1, "warmup": 1, "ema": 1, "workers": 1025}  # from 0 to below this


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what to train on stands in the split and the spec.

    Attributes:
        recipe: name of the recipe that gave the defaults.
        epochs: passes over the training images.
        batch_size: images a step and process.
        accumulate: parts in which a batch is computed; less memory for more time, the same step.
        optimizer: rmsprop, adamw or sgd (with Nesterov's momentum).
        learning_rate: its peak.
        weight_decay: L2 penalty of RMSprop and SGD, decoupled decay of AdamW.
        momentum: of RMSprop and SGD; the first beta of AdamW.
        gradient_clipping: largest norm of all gradients together.
        warmup: share of all steps in which the learning rate rises linearly from a hundredth.
        decay: how it falls afterwards: none, cosine or linear to a hundredth at the last step, or poly (power 0.9).
        patience: validations without a better Dice before the learning rate is divided by ten.
        early_stop: validations without a better Dice before the run ends; 0 for never.
        freeze_norm: share of all steps after which batch norm trains on its running statistics, but never in
            the first 50; 1 for never.
        norm_images: training images on which batch norm's statistics are estimated anew before each validation of the
            first 100 steps, or of 10 / (1 - ema); 0 for none.
        validations_per_epoch: how often an epoch is interrupted by a validation; the last one ends it.
        loss: terms joined by "+", each with an optional weight, such as "ce+dice" or "ce+0.5*lovasz".
        class_weights: none, balanced (by the classes' shares of the pixels), or one number a class, as "1,2,0.5".
        augment: none, light or strong.
        flip: random mirroring: none, horizontal or both.
        crop: height and width of random crops, in the network's pixels; None trains on whole images.
        ema: decay of the running average of the weights, which is what is validated and kept; 0 for none.
        precision: fp32, bf16, fp16, or auto for what the device is fastest at.
        checkpointing: where activations are computed twice instead of kept: none, encoder, all, or auto.
        compile: compile the network with torch.compile.
        sync_norm: batch norm over the images of all processes.
        deterministic: only operations that give the same bits each time.
        save_steps: steps between two writings of last.pth inside an epoch; 0 for none.
        save_minutes: the same by the clock.
        seed: of the weights, the order of images and their augmentation.
        workers: processes that prepare images; 0 prepares them in the main one.
        cache: where prepared images are kept: memory, disk or none.
        fast_decode: let the JPEG decoder halve large images while it reads them: faster, slightly different pixels.
    """

    recipe: str = "default"
    epochs: int = 10
    batch_size: int = 2
    accumulate: int = 1
    optimizer: str = "rmsprop"
    learning_rate: float = 1e-3
    weight_decay: float = 1e-8
    momentum: float = 0.9
    gradient_clipping: float = 1.0
    warmup: float = 0.05
    decay: str = "cosine"
    patience: int = 5
    early_stop: int = 0
    freeze_norm: float = 0.5
    norm_images: int = 64
    validations_per_epoch: int = 1
    loss: str = "ce+dice"
    class_weights: str = "none"
    augment: str = "none"
    flip: str = "horizontal"
    crop: tuple[int, int] | None = None
    ema: float = 0.0
    precision: str = "fp32"
    checkpointing: str = "none"
    compile: bool = False
    sync_norm: bool = False
    deterministic: bool = False
    save_steps: int = 0
    save_minutes: float = 0.0
    seed: int = 0
    workers: int = 0
    cache: str = "memory"
    fast_decode: bool = False

    def __post_init__(self) -> None:
        for field in dataclasses.fields(self):
            _check_type(field.name, getattr(self, field.name), field.default)
        for name in POSITIVE:
            if not getattr(self, name) > 0:
                raise InputError(f"{_words(name)} must be above 0, not {getattr(self, name)}")
        for name, limit in BELOW.items():
            if not 0 <= getattr(self, name) < limit:
                raise InputError(f"{_words(name)} must lie from 0 to below {limit}, not {getattr(self, name)}")
        if not -(2**63) <= self.seed < 2**63:
            raise InputError(f"seed must fit into 64 bits, as {self.seed} does not")
        for name in ("early_stop", "norm_images", "save_steps", "save_minutes"):
            if not getattr(self, name) >= 0:
                raise InputError(f"{_words(name)} must not be negative, as {getattr(self, name)} is")
        if not 0 <= self.freeze_norm <= 1:
            raise InputError(f"freeze norm must lie from 0 to 1, not {self.freeze_norm}")
        for name, known in CHOICES.items():
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")
        self._check_the_rest()

    def _check_the_rest(self) -> None:
        if self.accumulate > self.batch_size:
            raise InputError(
                f"a batch of {self.batch_size} cannot be divided into {self.accumulate} parts: "
                "lower --accumulate or raise --batch-size"
            )
        if self.crop is not None and not (len(self.crop) == 2 and all(type(side) is int for side in self.crop)):
            raise InputError(f"crop must be a height and a width, not {self.crop!r}")
        if self.crop is not None and not min(self.crop) > 0:
            raise InputError(f"both sides of a crop must be above 0, not {self.crop[0]}x{self.crop[1]}")
        check_loss(self.loss)
        parse_class_weights(self.class_weights)

    @classmethod
    def from_recipe(cls, name: str, **changes: Any) -> TrainConfig:
        """A recipe with some values changed; a change of None leaves the recipe's value.

        Raises:
            InputError: no such recipe, or an impossible value.
        """
        if name not in RECIPES:
            raise InputError(f"no recipe {name!r}; there are {', '.join(RECIPES)}")
        return cls(**{**RECIPES[name], "recipe": name, **{k: v for k, v in changes.items() if v is not None}})

    @classmethod
    def from_dict(cls, data: Mapping[str, Any]) -> TrainConfig:
        """Read what `dataclasses.asdict` made, by an earlier version too; unknown keys are left out.

        Raises:
            InputError: a value is of the wrong kind or impossible.
        """
        known = {field.name for field in dataclasses.fields(cls)}
        values = {key: value for key, value in {**data, **_translated(data)}.items() if key in known}
        if isinstance(values.get("crop"), list):
            values["crop"] = tuple(values["crop"])  # JSON has no tuples
        return cls(**values)


def parse_class_weights(text: str) -> tuple[float, ...] | None:
    """The numbers of "1,2,0.5"; None for "none" and "balanced".

    Raises:
        InputError: neither of those words, nor numbers above 0.
    """
    if text in ("none", "balanced"):
        return None
    try:
        weights = tuple(float(part) for part in text.split(","))
    except ValueError:
        weights = ()
    if not weights or not all(0 < weight < float("inf") for weight in weights):
        raise InputError(f"class weights must be none, balanced or numbers above 0, such as 1,2,0.5; not {text!r}")
    return weights


def parse_save_every(text: str) -> dict[str, Any]:
    """`save_steps` and `save_minutes` of "50" (steps) or "10m" (minutes).

    Raises:
        InputError: neither.
    """
    number = text.removesuffix("m")
    try:
        if number != text and 0 < float(number) < float("inf"):
            return {"save_steps": 0, "save_minutes": float(number)}
        if number == text and int(number) > 0:
            return {"save_steps": int(number), "save_minutes": 0.0}
    except ValueError:
        pass
    raise InputError(f"save every must be a number of steps, such as 50, or of minutes, such as 10m; not {text!r}")


def _check_type(name: str, value: object, default: object) -> None:
    if name == "crop":
        expected: tuple[type, ...] = (tuple, type(None))
    else:
        expected = (float, int) if isinstance(default, float) else (type(default),)
    if not isinstance(value, expected) or (isinstance(value, bool) and not isinstance(default, bool)):
        raise InputError(f"{_words(name)} must be of type {expected[0].__name__}, not {value!r}")


def _translated(data: Mapping[str, Any]) -> dict[str, Any]:
    """Values of earlier versions' configurations in today's terms."""
    found: dict[str, Any] = {}
    if "amp" in data and "precision" not in data:
        found["precision"] = "auto" if data["amp"] else "fp32"
    if "pooled_dice" in data and "loss" not in data:
        found["loss"] = "ce+pooled_dice" if data["pooled_dice"] else "ce+dice"
    if isinstance(data.get("checkpointing"), bool):
        found["checkpointing"] = "all" if data["checkpointing"] else "none"
    if "freeze_norm" in data and "norm_images" not in data:
        found["norm_images"] = 0
    return found


def _words(name: str) -> str:
    return name.replace("_", " ")
