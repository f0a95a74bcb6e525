"""Validation on a device that does not hold every image."""

from __future__ import annotations

import dataclasses

import pytest
import torch

from tests.gpu import FakeGpu
from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.split import Split
from unet_edge.torch_backend import TorchBackend
from unet_edge.training import validation
from unet_edge.training.config import TrainConfig
from unet_edge.training.reporter import Reporter
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.trainer import Trainer
from unet_edge.training.validation import score
from unet_edge_runtime.errors import OutOfMemoryError

CONFIG = TrainConfig(batch_size=4, norm_images=0)


class Told(Reporter):
    def __init__(self):
        self.notes = []

    def note(self, text):
        self.notes.append(text)


@pytest.fixture
def make_trainer(trained):
    def make(config=CONFIG):
        run = RunFolder(trained)
        split = Split.from_dict(run.read_split())
        split = dataclasses.replace(split, val=split.train)
        checkpoint = read_checkpoint(run.best)
        cpu = torch.device("cpu")
        return Trainer(config, checkpoint.build(), checkpoint.spec, split, run, cpu, Told())

    return make


def held_by_a_gpu(monkeypatch, trainer, pixels):
    """Lets the trainer validate on a GPU that holds so many pixels; gives the numbers of images that it was given."""
    run, tried = TorchBackend._run, []

    def limited(self, batch):
        if self.device.type == "cuda":
            tried.append(len(batch))
            if batch[:, 0].size > pixels:
                raise OutOfMemoryError("no room")
        return run(self, batch)

    monkeypatch.setattr(TorchBackend, "_run", limited)
    trainer.device = FakeGpu("cpu")
    return tried


def test_an_image_that_a_gpu_does_not_hold_is_validated_on_the_cpu(make_trainer, monkeypatch):
    expected = score(make_trainer())[1]
    trainer = make_trainer()
    tried = held_by_a_gpu(monkeypatch, trainer, pixels=10)
    segmenter, scores = score(trainer)
    assert scores == expected
    assert tried[-1] == 1
    assert trainer.reporter.notes == ["out of memory on cpu: this validation is done on the CPU"]
    assert segmenter.backend.device == torch.device("cpu")
    assert segmenter.backend.model is not trainer.model  # which stays on its GPU


def test_batches_of_whole_images_have_no_more_pixels_than_those_of_crops(make_trainer, monkeypatch):
    trainer = make_trainer()
    whole = trainer.spec.training_sizes[0]
    tried = held_by_a_gpu(monkeypatch, trainer, pixels=1 << 30)
    score(trainer)
    assert max(tried) == 4
    crop = whole[0] // 2, whole[1]
    trainer = make_trainer(dataclasses.replace(CONFIG, crop=crop))
    monkeypatch.undo()
    tried = held_by_a_gpu(monkeypatch, trainer, pixels=4 * crop[0] * crop[1])
    assert score(trainer)[1]["dice"] is not None
    assert set(tried) <= {1, 2}
    assert not trainer.reporter.notes


def test_a_cpu_without_memory_has_nowhere_to_go(make_trainer, monkeypatch):
    def full(*unused, **named):
        raise OutOfMemoryError("no room")

    monkeypatch.setattr(validation, "evaluate", full)
    with pytest.raises(OutOfMemoryError):
        score(make_trainer())
