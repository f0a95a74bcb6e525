import dataclasses

import pytest
import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.split import Split
from unet_edge.training import norm_statistics
from unet_edge.training.config import TrainConfig
from unet_edge.training.distributed import World
from unet_edge.training.engine import Engine
from unet_edge.training.norm_statistics import NormStatistics
from unet_edge.training.optimizers import make_optimizer
from unet_edge.training.run_folder import RunFolder
from unet_edge.training.start import DataConfig, NetworkConfig, train

PLAIN = TrainConfig(batch_size=2, flip="none", seed=5)
FIRST = "inc.double_conv.1"


def opened(trained, config, world=None):
    checkpoint = read_checkpoint(RunFolder(trained).best)
    split = Split.from_dict(RunFolder(trained).read_split())
    model = checkpoint.build()
    engine = Engine(model, make_optimizer(model, config), lambda *unused: None, config, torch.device("cpu"))
    return NormStatistics(split, checkpoint.spec, config, engine, world or World()), model


@pytest.mark.parametrize("accumulate", [1, 2])
def test_the_statistics_are_the_mean_of_those_of_the_batches(trained, accumulate):
    config = dataclasses.replace(PLAIN, accumulate=accumulate, norm_images=4)
    norms, model = opened(trained, config)
    first, second = model.inc.double_conv[0], model.inc.double_conv[1]
    count, momentum = int(second.num_batches_tracked), second.momentum
    norms.estimate(model, epoch=3)
    parts = [part for images, _ in norms.loader for part in first(images).tensor_split(accumulate)]
    assert len(parts) == 2 * accumulate
    mean = torch.stack([part.mean((0, 2, 3)) for part in parts]).mean(0)
    variance = torch.stack([part.var((0, 2, 3)) for part in parts]).mean(0)
    torch.testing.assert_close(second.running_mean, mean)
    torch.testing.assert_close(second.running_var, variance)
    assert (int(second.num_batches_tracked), second.momentum) == (count, momentum)
    assert not any(module.training for module in model.modules())


def test_later_layers_see_what_training_would_show_them(trained):
    norms, model = opened(trained, dataclasses.replace(PLAIN, norm_images=2))
    seen = []
    last = model.up1.conv.double_conv[4]
    handle = last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    norms.estimate(model, epoch=1)
    handle.remove()
    (x,) = seen
    model.train()
    images, _ = next(iter(norms.loader))
    handle = last.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0]))
    model(images)
    handle.remove()
    torch.testing.assert_close(x, seen[1].detach())


@pytest.mark.parametrize(("batch", "wanted", "images"), [(3, 4, 6), (2, 4, 4), (5, 1, 5), (4, 1000, "all")])
def test_batches_are_as_large_as_those_in_training(trained, batch, wanted, images):
    norms, _ = opened(trained, dataclasses.replace(PLAIN, batch_size=batch, norm_images=wanted))
    whole = len(Split.from_dict(RunFolder(trained).read_split()).train)
    expected = whole if images == "all" else images
    sizes = [len(labels) for _, labels in norms.loader]
    assert sum(sizes) == expected
    assert all(size == batch for size in sizes[:-1])
    assert sizes[-1] == (expected % batch or batch)


@pytest.mark.parametrize("sync_norm", [False, True])
def test_among_several_processes_as_many_images_count(trained, sync_norm):
    """Only synchronised norms see what the others do; without them the writer's own images are all that counts."""
    config = dataclasses.replace(PLAIN, norm_images=8, sync_norm=sync_norm)
    seen = [sum(len(labels) for _, labels in opened(trained, config, World(rank, 2))[0].loader) for rank in (0, 1)]
    assert seen == ([4, 4] if sync_norm else [8, 8])


def test_what_is_kept_has_them_unless_they_are_not_wanted(tmp_path, pairs_folder):
    network = NetworkConfig(4, 2, True, scale=1.0)
    for images in (0, 8):
        config = dataclasses.replace(PLAIN, epochs=1, norm_images=images)
        train(DataConfig(*pairs_folder), tmp_path / str(images), network, config, "cpu")
    without, having = (read_checkpoint(tmp_path / name / "best.pth").weights for name in ("0", "8"))
    assert torch.equal(without["outc.conv.weight"], having["outc.conv.weight"])
    assert not torch.equal(without[f"{FIRST}.running_mean"], having[f"{FIRST}.running_mean"])
    norms, model = opened(tmp_path / "8", dataclasses.replace(PLAIN, norm_images=8))
    norms.estimate(model, epoch=1)
    torch.testing.assert_close(model.state_dict()[f"{FIRST}.running_mean"], having[f"{FIRST}.running_mean"])


@pytest.mark.parametrize(("ema", "until"), [(0.0, 100), (0.5, 100), (0.99, 1000), (0.995, 2000)])
def test_they_are_wanted_until_the_running_averages_have_forgotten_the_start(trained, ema, until):
    norms, _ = opened(trained, dataclasses.replace(PLAIN, ema=ema))
    assert norms.until == pytest.approx(until)


def test_later_the_running_averages_stay(tmp_path, pairs_folder, monkeypatch):
    network = NetworkConfig(4, 2, True, scale=1.0)
    config = dataclasses.replace(PLAIN, epochs=1, freeze_norm=1.0)
    for name, windows in (("never", 0.0), ("off", 10)):
        monkeypatch.setattr(norm_statistics, "WINDOWS", windows)
        images = 0 if name == "off" else 64
        train(
            DataConfig(*pairs_folder), tmp_path / name, network, dataclasses.replace(config, norm_images=images), "cpu"
        )
    never, off = (read_checkpoint(tmp_path / name / "best.pth").weights for name in ("never", "off"))
    assert all(torch.equal(never[name], off[name]) for name in never)


def test_averaged_weights_are_good_after_few_steps(tmp_path, pairs_folder):
    """Without it the running averages of the averaged network lag twice, and it predicts one class."""
    network = NetworkConfig(8, 2, True, scale=1.0)
    dice = {}
    for images in (0, 64):
        config = TrainConfig.from_recipe("thorough", epochs=2, batch_size=2, augment="none", norm_images=images, seed=5)
        dice[images] = train(DataConfig(*pairs_folder), tmp_path / str(images), network, config, "cpu")["dice"]
    assert dice[64] > dice[0] + 0.1
