"""A small data set, and one trained run shared by the tests of the commands."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.drawn import write_pairs


@pytest.fixture
def pairs_folder(tmp_path: Path) -> tuple[Path, Path]:
    """Twelve pairs: the folder of images and the folder of masks."""
    return write_pairs(tmp_path / "data")


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder of a finished run on the drawn pairs; its data lies beside it in `data`."""
    from unet_edge.training.config import TrainConfig
    from unet_edge.training.start import DataConfig, NetworkConfig, train

    folder = tmp_path_factory.mktemp("trained")
    images, masks = write_pairs(folder / "data")
    data = DataConfig(images, masks, class_names=("ground", "disc", "bar"))
    train(data, folder / "run", NetworkConfig(8, 2, True, scale=1.0), TrainConfig(epochs=8, batch_size=2), "cpu")
    return folder / "run"
