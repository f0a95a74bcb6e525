"""Graphs with several fixed sizes, and graphs that return a picture of the mask."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from unet_edge_runtime import Segmenter
from unet_edge_runtime.backend import Backend
from unet_edge_runtime.errors import ModelFileError
from unet_edge_runtime.spec import ModelSpec, function_name

SIZES = ((32, 48), (64, 64), (16, 80))


class Fake(Backend):
    """Logits that follow brightness; notes the sizes that it is run at."""

    name = "fake"

    def __init__(self, spec, answer=None):
        self.spec, self.path, self.answer, self.seen = spec, Path("m.mlpackage"), answer, []

    def _run(self, batch):
        self.seen.append(batch.shape[2:])
        if self.answer is not None:
            return self.answer
        bright = batch.mean(axis=1, keepdims=True)
        return np.concatenate([0.5 - bright, bright - 0.5], axis=1)


@pytest.fixture
def several(make_spec):
    return make_spec(multiple=16, input_size=SIZES[0], input_sizes=SIZES)


def test_they_come_back_as_they_left(several, make_spec):
    picture = make_spec(head="classmap", label_values=(0, 255))
    for spec in (several, picture):
        assert ModelSpec.from_json(spec.to_json()) == spec
    assert several.input_sizes == SIZES


def test_a_function_is_named_after_its_size():
    assert [function_name(size) for size in SIZES] == ["size_32x48", "size_64x64", "size_16x80"]


@pytest.mark.parametrize(
    ("image", "seen"),
    [
        ((20, 40), [(32, 48)]),
        ((10, 80), [(16, 80)]),
        ((33, 48), [(64, 64)]),
        ((64, 64), [(64, 64)]),
        ((70, 64), [(64, 64)] * 2),
    ],
)
def test_an_image_goes_to_the_smallest_size_that_holds_it(several, image, seen):
    backend = Fake(several)
    pixels = np.random.default_rng(0).integers(0, 256, (*image, 3), np.uint8)
    result = Segmenter(backend).segment(pixels)
    assert result.labels.shape == image
    assert backend.seen == seen


def test_a_backend_takes_these_sizes_only(several):
    backend = Fake(several)
    for size in SIZES:
        assert backend.run(np.zeros((1, 3, *size), np.float32)).shape == (1, 2, *size)
    with pytest.raises(
        ValueError, match=r"takes images of \(32, 48\) or \(64, 64\) or \(16, 80\) only, got \(48, 48\)"
    ):
        backend.run(np.zeros((1, 3, 48, 48), np.float32))


def test_a_picture_becomes_labels(make_spec):
    spec = make_spec((10, 200, 90), multiple=2, head="classmap", label_values=(10, 200, 90))
    picture = np.array([[10, 200, 90, 0], [255, 93, 49, 146]], np.uint8)
    backend = Fake(spec, picture[None, None])
    labels = Segmenter(backend).segment(np.zeros((2, 4, 3), np.uint8)).labels
    assert labels.tolist() == [[0, 1, 2, 0], [1, 2, 0, 1]]
    assert backend.run(np.zeros((1, 3, 2, 4), np.float32)).dtype == np.float32


@pytest.mark.parametrize(
    "changes",
    [
        {"input_sizes": ((32, 48),)},
        {"input_size": (32, 48), "input_sizes": ((64, 64),)},
        {"input_size": (32, 48), "input_sizes": ((32, 48), (32, 48))},
        {"input_size": (32, 48), "input_sizes": ((32, 48), (33, 48))},
        {"input_size": (32, 48), "input_sizes": ((32, 48), "large")},
        {"input_size": (32, 48), "input_sizes": ((32, 48), (0, 16))},
        {"label_values": (0, 255)},
        {"head": "classmap", "label_values": (0,)},
        {"head": "classmap", "label_values": (7, 7)},
        {"head": "classmap", "label_values": (0, 256)},
        {"head": "classmap", "label_values": (0, True)},
        {"head": "classmap", "label_values": (0, "white")},
    ],
)
def test_what_contradicts_itself_is_refused(make_spec, changes):
    data = {**make_spec(multiple=16).to_dict(), **changes}
    with pytest.raises(ModelFileError):
        ModelSpec.from_dict(data, "m.mlpackage")
