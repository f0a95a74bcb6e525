"""Training with --deterministic: what it switches, and what it refuses."""

import dataclasses

import pytest
import torch

from unet_edge.training import trainer as trainer_module
from unet_edge.training.reporter import Reporter
from unet_edge.training.start import DataConfig, train
from unet_edge_runtime.errors import TrainingError

from .conftest import QUICK, SMALL


def test_deterministic_refuses_what_is_not_and_leaves_no_trace(tmp_path, pairs_folder):
    strict: list[bool] = []

    class Look(Reporter):
        def step(self, *unused):
            strict.append(torch.are_deterministic_algorithms_enabled() and torch.backends.cudnn.deterministic)

    for wanted in (True, False):
        config = dataclasses.replace(QUICK, epochs=1, deterministic=wanted)
        train(DataConfig(*pairs_folder), tmp_path / str(wanted), SMALL, config, "cpu", Look())
    assert strict == [True] * 6 + [False] * 6
    assert not torch.are_deterministic_algorithms_enabled()


def test_an_operation_without_a_deterministic_way_is_said_in_one_line(tmp_path, pairs_folder, monkeypatch):
    def nll(logits, labels):
        # A real one of torch, found on the CPU too.
        torch.zeros(3).put_(torch.tensor([0]), torch.tensor([1.0]))
        return logits.sum()

    monkeypatch.setattr(trainer_module, "make_loss", lambda *unused: nll)
    config = dataclasses.replace(QUICK, deterministic=True)
    with pytest.raises(TrainingError, match=r"^put_ has no deterministic way on cpu: leave --deterministic out"):
        train(DataConfig(*pairs_folder), tmp_path / "run", SMALL, config, "cpu")
