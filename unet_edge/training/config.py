"""What a training run is made of, and the named recipes."""

from __future__ import annotations

import dataclasses
from dataclasses import dataclass
from typing import Any

from unet_edge_runtime.errors import InputError

__all__ = ["DECAYS", "FLIPS", "RECIPES", "TrainConfig"]

DECAYS = ("none", "cosine", "linear")
FLIPS = ("none", "horizontal", "both")


@dataclass(frozen=True)
class TrainConfig:
    """How to train; what to train on stands in the split and the spec.

    Attributes:
        recipe: name of the recipe that gave the defaults.
        epochs: passes over the training images.
        batch_size: images a step.
        learning_rate: peak learning rate of RMSprop.
        weight_decay: L2 penalty.
        momentum: of RMSprop.
        gradient_clipping: largest norm of all gradients together.
        warmup: share of all steps in which the learning rate rises linearly from a hundredth.
        decay: how it falls afterwards: none, cosine or linear, to a hundredth at the last step.
        patience: validations without a better Dice before the learning rate is divided by ten.
        freeze_norm: share of all steps after which batch norm trains on its running statistics; 1 for never.
        validations_per_epoch: how often an epoch is interrupted by a validation; the last one ends it.
        pooled_dice: Dice loss over all classes at once (the seed's) instead of per class.
        flip: random mirroring: none, horizontal or both.
        amp: mixed precision.
        checkpointing: activation checkpointing.
        seed: of the weights, the order of images and the flips.
        workers: processes that prepare images; 0 prepares them in the main one.
    """

    recipe: str = "default"
    epochs: int = 10
    batch_size: int = 2
    learning_rate: float = 1e-3
    weight_decay: float = 1e-8
    momentum: float = 0.9
    gradient_clipping: float = 1.0
    warmup: float = 0.05
    decay: str = "cosine"
    patience: int = 5
    freeze_norm: float = 0.5
    validations_per_epoch: int = 1
    pooled_dice: bool = False
    flip: str = "horizontal"
    amp: bool = False
    checkpointing: bool = False
    seed: int = 0
    workers: int = 0

    def __post_init__(self) -> None:
        positive = ("epochs", "batch_size", "learning_rate", "gradient_clipping", "patience", "validations_per_epoch")
        for name in positive:
            if not getattr(self, name) > 0:
                raise InputError(f"{name.replace('_', ' ')} must be above 0, not {getattr(self, name)}")
        for name, limit in (("weight_decay", 1.0), ("momentum", 1.0), ("warmup", 1.0), ("workers", 1025)):
            if not 0 <= getattr(self, name) < limit:
                raise InputError(f"{name.replace('_', ' ')} must lie from 0 to below {limit:g}")

        if not 0 <= self.freeze_norm <= 1:
            raise InputError(f"freeze norm must lie from 0 to 1, not {self.freeze_norm}")
        for name, known in (("decay", DECAYS), ("flip", FLIPS)):
            if getattr(self, name) not in known:
                raise InputError(f"{name} must be one of {', '.join(known)}, not {getattr(self, name)!r}")

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
    def from_dict(cls, data: dict[str, Any]) -> TrainConfig:
        """Read what `dataclasses.asdict` made; unknown keys are left out."""
        known = {field.name for field in dataclasses.fields(cls)}
        return cls(**{key: value for key, value in data.items() if key in known})


RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    # milesial/Pytorch-UNet's values: a tiny step with a very long memory, one image a step, validated five
    # times an epoch, and no augmentation.
    "seed": {
        "epochs": 5,
        "batch_size": 1,
        "learning_rate": 1e-5,
        "weight_decay": 1e-8,
        "momentum": 0.999,
        "gradient_clipping": 1.0,
        "warmup": 0.0,
        "decay": "none",
        "patience": 5,
        "freeze_norm": 1.0,
        "validations_per_epoch": 5,
        "pooled_dice": True,
        "flip": "none",
    },
}
