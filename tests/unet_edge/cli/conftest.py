"""A real Core ML package, converted once."""

from __future__ import annotations

import shutil

import pytest


@pytest.fixture(scope="session")
def converted_package(small_checkpoint, tmp_path_factory):
    pytest.importorskip("coremltools")
    from unet_edge_export import export_model

    return export_model(
        small_checkpoint, "coreml", tmp_path_factory.mktemp("converted") / "small.mlpackage", size=(32, 48)
    ).path


@pytest.fixture
def small_package(converted_package, tmp_path):
    """A copy of `small_checkpoint` as a package, for images of 32x48."""
    return shutil.copytree(converted_package, tmp_path / "small.mlpackage")
