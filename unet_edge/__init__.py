"""Model, data, training and the command line of unet-edge.

from pathlib import Path
from unet_edge import DataConfig, NetworkConfig, TrainConfig, train

data = DataConfig(Path("photos"), Path("masks"))
best = train(data, Path("run"), NetworkConfig(base_channels=16, bilinear=True), TrainConfig(epochs=10))
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from unet_edge.checkpoint import read_checkpoint
    from unet_edge.evaluation import evaluate
    from unet_edge.model import UNet, UNetConfig
    from unet_edge.training.config import TrainConfig
    from unet_edge.training.start import DataConfig, NetworkConfig, resume, train

__all__ = [
    "DataConfig",
    "NetworkConfig",
    "TrainConfig",
    "UNet",
    "UNetConfig",
    "evaluate",
    "read_checkpoint",
    "resume",
    "train",
]

_HOMES = {
    "DataConfig": "unet_edge.training.start",
    "NetworkConfig": "unet_edge.training.start",
    "TrainConfig": "unet_edge.training.config",
    "UNet": "unet_edge.model",
    "UNetConfig": "unet_edge.model",
    "evaluate": "unet_edge.evaluation",
    "read_checkpoint": "unet_edge.checkpoint",
    "resume": "unet_edge.training.start",
    "train": "unet_edge.training.start",
}


def __getattr__(name: str) -> Any:
    # The command line imports this package for its help, which must not cost an import of torch.
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name]), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
