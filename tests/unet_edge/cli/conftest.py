"""A real Core ML package, converted once."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def converted_package(small_checkpoint, tmp_path_factory):
    pytest.importorskip("coremltools")
    from unet_edge.checkpoint import read_checkpoint
    from unet_edge_export.to_coreml import write_coreml

    # Not through `export_model`: an untrained network is too undecided for its comparison in fp16.
    checkpoint = read_checkpoint(small_checkpoint)
    path = tmp_path_factory.mktemp("converted") / "small.mlpackage"
    write_coreml(checkpoint.build(), checkpoint.spec.replace(input_size=(32, 48), precision="fp16"), path)
    return path


@pytest.fixture
def small_package(converted_package, tmp_path):
    """A copy of `small_checkpoint` as a package, for images of 32x48."""
    return shutil.copytree(converted_package, tmp_path / "small.mlpackage")
