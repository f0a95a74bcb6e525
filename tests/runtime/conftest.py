"""A backend that is a function, for what lies around a network."""

from __future__ import annotations

from pathlib import Path

import pytest

from unet_edge_runtime.backend import Backend


@pytest.fixture
def function_backend():
    """A function (spec, batch -> output) -> Backend; it records the shapes it was given."""

    class FunctionBackend(Backend):
        name = "function"

        def __init__(self, spec, function):
            self.spec, self.function, self.path, self.shapes = spec, function, Path("a function"), []

        def _run(self, batch):
            self.shapes.append(batch.shape)
            return self.function(batch)

    return FunctionBackend
