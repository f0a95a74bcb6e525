"""The network: milesial's at the defaults, the same mathematics at every width and depth."""

from __future__ import annotations

import copy
import itertools

import pytest
import torch
from torch import nn
from torch.nn.functional import conv2d, conv_transpose2d, cross_entropy, interpolate, pad

from unet_edge.model import UNet, UNetConfig
from unet_edge.training.memory import saved_bytes
from unet_edge_runtime.errors import ModelFileError

PARAMETERS = {"transposed": 31_037_698, "bilinear": 17_263_042}  # milesial/Pytorch-UNet, 3 channels, 2 classes


@pytest.mark.parametrize(("up", "count"), PARAMETERS.items())
def test_the_defaults_are_the_seeds_network(up, count):
    with torch.device("meta"):
        model = UNet(UNetConfig(up=up))
    assert sum(parameter.numel() for parameter in model.parameters()) == count


def milesial_keys(depth, bilinear):
    """The names in a state dict of milesial's, for any depth."""
    norm = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")

    def double(prefix):
        for convolution, normalisation in ((0, 1), (3, 4)):
            yield f"{prefix}.double_conv.{convolution}.weight"
            yield from (f"{prefix}.double_conv.{normalisation}.{name}" for name in norm)

    yield from double("inc")
    for level in range(1, depth + 1):
        yield from double(f"down{level}.maxpool_conv.1")
    for level in range(1, depth + 1):
        if not bilinear:
            yield from (f"up{level}.up.weight", f"up{level}.up.bias")
        yield from double(f"up{level}.conv")
    yield from ("outc.conv.weight", "outc.conv.bias")


@pytest.mark.parametrize("depth", [1, 2, 4, 5])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_keys_are_milesials(depth, up):
    with torch.device("meta"):
        keys = set(UNet(UNetConfig(base_channels=8, depth=depth, up=up)).state_dict())
    assert keys == set(milesial_keys(depth, up == "bilinear"))


GRID = [
    UNetConfig(channels, classes, width, depth, up)
    for channels, classes, width, depth, up in itertools.product(
        (1, 3, 4), (1, 2, 11), (2, 6, 16), (1, 2, 4), ("transposed", "bilinear")
    )
]


def test_the_architecture_is_read_off_the_shapes():
    for config in GRID:
        with torch.device("meta"):
            weights = UNet(config).state_dict()
        assert UNetConfig.from_state_dict(weights) == config


@pytest.mark.parametrize(
    "spoil",
    [
        lambda w: w.pop("up1.conv.double_conv.0.weight"),
        lambda w: w.pop("inc.double_conv.0.weight"),
        lambda w: w.update(extra=torch.zeros(1)),
        lambda w: w.update({"outc.conv.bias": torch.zeros(7)}),
        lambda w: w.update({"down2.maxpool_conv.1.double_conv.0.weight": torch.zeros(3)}),
        lambda w: w.update({"inc.double_conv.0.weight": torch.zeros(0, 3, 3, 3)}),
        lambda w: w.update({"inc.double_conv.0.weight": torch.zeros(())}),
        lambda w: w.clear(),
    ],
)
def test_another_network_is_refused_in_one_line(spoil):
    weights = dict(UNet(UNetConfig(base_channels=4, depth=2)).state_dict())
    spoil(weights)
    with pytest.raises(
        ModelFileError, match=r"^net\.pth is not a checkpoint of this U-Net \(.*\): give one of [^\n]*$"
    ):
        UNetConfig.from_state_dict(weights, "net.pth")


@pytest.mark.parametrize(
    "fields",
    [
        {"up": "nearest"},
        {"depth": 0},
        {"depth": 9},
        {"base_channels": 0},
        {"classes": 0},
        {"in_channels": 0},
    ],
)
def test_an_impossible_config(fields):
    with pytest.raises(ValueError, match=r"up must be|must be at least 1"):
        UNetConfig(**fields)


@pytest.mark.parametrize("size", [(16, 24), (24, 16), (8, 16), (17, 16)])
def test_sides_are_multiples(size):
    model = UNet(UNetConfig(base_channels=2)).eval()
    with pytest.raises(ValueError, match="height and width must be multiples of 16, not"):
        model(torch.zeros(1, 3, *size))


def milesial_forward(weights, x, up, depth=4):
    """Milesial's forward pass in evaluation mode, written from its description and nothing of ours.

    Two 3x3 convolutions, each normalised with the running statistics and rectified; halved by max pooling;
    doubled by a transposed convolution or bilinearly with aligned corners; **padded to the size of the encoder's
    features, half before and the rest after**, and joined behind them.
    """

    def double(x, prefix):
        for convolution, norm in ((0, 1), (3, 4)):
            name = f"{prefix}.double_conv.{norm}"
            x = conv2d(x, weights[f"{prefix}.double_conv.{convolution}.weight"], padding=1)
            mean, variance, gamma, beta = (
                weights[f"{name}.{part}"][:, None, None] for part in ("running_mean", "running_var", "weight", "bias")
            )
            x = ((x - mean) / torch.sqrt(variance + 1e-5) * gamma + beta).clamp(min=0)
        return x

    features = [double(x, "inc")]
    for level in range(1, depth + 1):
        features.append(double(nn.MaxPool2d(2)(features[-1]), f"down{level}.maxpool_conv.1"))
    y = features.pop()
    for level in range(1, depth + 1):
        skip = features.pop()
        if up == "bilinear":
            y = interpolate(y, scale_factor=2, mode="bilinear", align_corners=True)
        else:
            y = conv_transpose2d(y, weights[f"up{level}.up.weight"], weights[f"up{level}.up.bias"], stride=2)
        down, right = skip.shape[2] - y.shape[2], skip.shape[3] - y.shape[3]
        y = pad(y, [right // 2, right - right // 2, down // 2, down - down // 2])
        y = double(torch.cat([skip, y], dim=1), f"up{level}.conv")
    return conv2d(y, weights["outc.conv.weight"], weights["outc.conv.bias"])


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize(("classes", "channels"), [(2, 3), (1, 1), (5, 4)])
def test_logits_are_milesials(make_model, up, classes, channels):
    model = make_model(in_channels=channels, classes=classes, base_channels=8, depth=4, up=up)
    x = torch.rand(2, channels, 48, 80)
    with torch.no_grad():
        ours, theirs = model(x), milesial_forward(model.state_dict(), x, up)
    assert theirs.shape == ours.shape == (2, classes, 48, 80)
    torch.testing.assert_close(ours, theirs, atol=1e-4, rtol=1e-4)


@pytest.mark.slow
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_logits_are_milesials_at_full_width(make_model, up):
    model = make_model(base_channels=64, depth=4, up=up)
    x = torch.rand(1, 3, 64, 96)
    with torch.no_grad():
        torch.testing.assert_close(model(x), milesial_forward(model.state_dict(), x, up), atol=1e-4, rtol=1e-4)


POLICIES = ("none", "encoder", "all")


def step(model, x, target, dtype=torch.float32):
    """One forward and backward pass; the gradients and the batch norms' statistics."""
    model.zero_grad()
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        logits = model(x)
    cross_entropy(logits.float(), target).backward()
    gradients = {name: parameter.grad for name, parameter in model.named_parameters()}
    statistics = {name: value.clone() for name, value in model.named_buffers()}
    return gradients, statistics


def pair_of_models(policy, **fields):
    """The same weights twice: plain, and with a policy."""
    torch.manual_seed(0)
    plain = UNet(UNetConfig(**{"base_channels": 4, "depth": 3, **fields})).train()
    saving = UNet(plain.config, policy).train()
    saving.load_state_dict(copy.deepcopy(plain.state_dict()))
    return plain, saving


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("policy", ["encoder", "all"])
def test_checkpointing_changes_memory_only(policy, up, dtype, layout):
    """The seed's own form trains nothing but the last convolution, and counts every batch twice once mended."""
    plain, saving = (model.to(memory_format=layout) for model in pair_of_models(policy, up=up))
    x, target = torch.rand(2, 3, 16, 24).to(memory_format=layout), torch.randint(0, 2, (2, 16, 24))
    for count in (1, 2, 3):
        wanted, statistics = step(plain, x, target, dtype)
        arrived, recorded = step(saving, x, target, dtype)
        assert all(gradient is not None and gradient.abs().sum() > 0 for gradient in arrived.values())
        assert len(arrived) == sum(1 for _ in saving.parameters())
        for name in wanted:
            error = (arrived[name] - wanted[name]).norm() / wanted[name].norm()
            assert error <= 1e-6, name
        assert all(torch.equal(recorded[name], statistics[name]) for name in statistics)
        counters = {int(value) for name, value in recorded.items() if name.endswith("num_batches_tracked")}
        assert counters == {count}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_each_policy_keeps_less_than_the_one_before(up, dtype):
    kept = []
    for policy in POLICIES:
        _, model = pair_of_models(policy, up=up)
        with saved_bytes(model) as storages, torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
            model(torch.rand(2, 3, 64, 96))
        kept.append(sum(storages.values()))
    none, encoder, everything = kept
    # The first blocks hold most, those of the encoder about half of all; "all" leaves what lies between the blocks.
    assert encoder < 0.75 * none
    assert everything < 0.5 * none


def test_checkpointing_leaves_the_norms_as_they_were():
    _, model = pair_of_models("all")
    step(model, torch.rand(2, 3, 16, 16), torch.randint(0, 2, (2, 16, 16)))
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    assert {norm.momentum for norm in norms} == {0.1}
    assert "inc.double_conv.1.num_batches_tracked" in model.state_dict()


def test_checkpointing_keeps_frozen_norms_frozen():
    plain, saving = pair_of_models("all")
    for model in (plain, saving):
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                module.eval()
    x, target = torch.rand(2, 3, 16, 24), torch.randint(0, 2, (2, 16, 24))
    before = {name: value.clone() for name, value in saving.named_buffers()}
    (wanted, _), (arrived, recorded) = step(plain, x, target), step(saving, x, target)
    assert all(torch.equal(recorded[name], before[name]) for name in before)
    for name in wanted:
        torch.testing.assert_close(arrived[name], wanted[name], msg=name)


def test_checkpointing_is_for_training_only():
    plain, model = pair_of_models("all")
    x = torch.rand(2, 3, 16, 16)
    assert torch.equal(model.eval()(x), plain.eval()(x))
    with torch.no_grad():
        assert not model.train()(x).requires_grad


@pytest.mark.slow
@pytest.mark.parametrize("policy", ["encoder", "all"])
def test_checkpointing_works_compiled(policy):
    """Without a C++ compiler: this backend traces and divides the graph as the default one does."""
    plain, saving = pair_of_models(policy, depth=2)
    x, target = torch.rand(2, 3, 16, 24), torch.randint(0, 2, (2, 16, 24))
    compiled = torch.compile(saving, backend="aot_eager_decomp_partition")
    with saved_bytes(plain) as wanted_bytes:
        plain(x)
    plain.load_state_dict(saving.state_dict())
    wanted, statistics = step(plain, x, target)
    with saved_bytes(saving) as storages:
        logits = compiled(x)
    cross_entropy(logits, target).backward()
    assert sum(storages.values()) < 0.75 * sum(wanted_bytes.values())
    for name, parameter in saving.named_parameters():
        torch.testing.assert_close(parameter.grad, wanted[name], atol=1e-5, rtol=1e-4, msg=name)
    for name, value in saving.named_buffers():
        torch.testing.assert_close(value, statistics[name], msg=name)
