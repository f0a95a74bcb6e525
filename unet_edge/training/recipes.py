"""Named sets of training values. Each changes what it names and leaves the rest as `TrainConfig` has it.

The recipe "default" is the defaults of `TrainConfig` themselves, so that Python and the command line agree.
"""

from __future__ import annotations

from typing import Any

__all__ = ["RECIPES", "RECIPE_NOTES"]

RECIPES: dict[str, dict[str, Any]] = {
    "default": {},
    "thorough": {
        "epochs": 40,
        "batch_size": 4,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "freeze_norm": 1.0,
        "ema": 0.99,
        "augment": "light",
    },
    "microscopy": {
        "epochs": 80,
        "batch_size": 8,
        "optimizer": "adamw",
        "learning_rate": 1e-3,
        "weight_decay": 0.01,
        "freeze_norm": 1.0,
        "ema": 0.995,
        "loss": "ce+lovasz",
        "augment": "strong",
        "flip": "both",
    },
    "seed": {
        "epochs": 5,
        "batch_size": 1,
        "optimizer": "rmsprop",
        "learning_rate": 1e-5,
        "weight_decay": 1e-8,
        "momentum": 0.999,
        "gradient_clipping": 1.0,
        "warmup": 0.0,
        "decay": "none",
        "patience": 5,
        "freeze_norm": 1.0,
        "norm_images": 0,
        "validations_per_epoch": 5,
        "accumulate": 1,
        "early_stop": 0,
        "ema": 0.0,
        "loss": "ce+pooled_dice",
        "class_weights": "none",
        "crop": None,
        "augment": "none",
        "flip": "none",
    },
}

RECIPE_NOTES: dict[str, str] = {
    "default": "short runs on a few hundred to a few thousand images",
    "thorough": "longer runs: AdamW, averaged weights, light augmentation",
    "microscopy": "cells and membranes, which have no upright: strong augmentation, both flips, Lovász loss",
    "seed": "milesial/Pytorch-UNet's values: a tiny step with a very long memory, one image a step, no augmentation",
}
