import dataclasses

import pytest
import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.evaluation import evaluate
from unet_edge.training.config import TrainConfig
from unet_edge.training.ema import Ema
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, train
from unet_edge_runtime.segmenter import Segmenter


def test_the_average_is_the_formulas(make_model):
    model = make_model()
    ema = Ema(model, 0.3)
    expected = {name: value.double().clone() for name, value in model.state_dict().items()}
    for step in range(1, 6):
        with torch.no_grad():
            for value in model.state_dict().values():
                value.add_(step)
        ema.update(step)
        keep = min(0.3, (1 + step) / (10 + step))
        for name, value in model.state_dict().items():
            expected[name] = keep * expected[name] + (1 - keep) * value.double()
    for name, value in ema.model.state_dict().items():
        if value.is_floating_point():  # running means and variances too
            assert torch.allclose(value.double(), expected[name], rtol=1e-6), name
        else:
            assert torch.equal(value, model.state_dict()[name])
    assert min(0.3, 2 / 11) == 2 / 11  # the first update follows the warm-up, the later ones the decay
    assert not any(parameter.requires_grad for parameter in ema.model.parameters())


def test_it_starts_as_the_network_and_is_no_view_of_it(make_model):
    model = make_model()
    ema = Ema(model, 0.9)
    with torch.no_grad():
        model.outc.conv.weight.zero_()
    assert ema.model.outc.conv.weight.abs().sum() > 0


def test_the_averaged_network_is_what_is_validated_and_kept(tmp_path, pairs_folder):
    config = TrainConfig(epochs=2, ema=0.95, seed=1, norm_images=0)
    network = NetworkConfig(4, 2, True, scale=1.0)
    best = train(DataConfig(*pairs_folder, validation=25), tmp_path / "run", network, config, "cpu", trackers=())
    run = RunFolder(tmp_path / "run")
    from unet_edge.data.split import Split

    val = Split.from_dict(run.read_split()).val
    matrix = evaluate(Segmenter.open(run.best), val)
    assert matrix.summary(read_checkpoint(run.best).spec)["dice"] == pytest.approx(best["dice"], abs=1e-4)
    raw = dataclasses.replace(config, ema=0.0)
    train(DataConfig(*pairs_folder, validation=25), tmp_path / "raw", network, raw, "cpu", trackers=())
    averaged, plain = read_checkpoint(run.last), read_checkpoint(tmp_path / "raw" / "last.pth")
    # Averaging follows the training and does not change it.
    for name, value in plain.weights.items():
        assert torch.equal(averaged.state["raw_weights"][name], value), name
