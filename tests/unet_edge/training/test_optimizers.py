import pytest
import torch

from unet_edge.training.config import TrainConfig
from unet_edge.training.optimizers import make_optimizer


@pytest.mark.parametrize(("name", "kind"), [("rmsprop", "RMSprop"), ("adamw", "AdamW"), ("sgd", "SGD")])
def test_each_name_is_its_optimiser(name, kind, make_model):
    config = TrainConfig(optimizer=name, learning_rate=0.02, momentum=0.8, weight_decay=0.03)
    optimizer = make_optimizer(make_model(), config)
    assert type(optimizer).__name__ == kind
    assert {group["lr"] for group in optimizer.param_groups} == {0.02}
    assert {group.get("momentum", group.get("betas", [0])[0]) for group in optimizer.param_groups} == {0.8}


@pytest.mark.parametrize("name", ["adamw", "sgd"])
def test_biases_and_batch_norm_are_not_decayed(name, make_model):
    model = make_model()
    optimizer = make_optimizer(model, TrainConfig(optimizer=name, learning_rate=0.1, weight_decay=0.5))
    before = {key: value.clone() for key, value in model.named_parameters()}
    for parameter in model.parameters():
        parameter.grad = torch.zeros_like(parameter)
    optimizer.step()
    changed = {key for key, value in model.named_parameters() if not torch.equal(value, before[key])}
    convolutions = {key for key, value in model.named_parameters() if value.ndim == 4}
    assert changed == convolutions
    assert sum(len(group["params"]) for group in optimizer.param_groups) == len(before)


def test_sgd_is_nesterovs_and_takes_no_momentum_too(make_model):
    assert make_optimizer(make_model(), TrainConfig(optimizer="sgd")).param_groups[0]["nesterov"]
    assert not make_optimizer(make_model(), TrainConfig(optimizer="sgd", momentum=0.0)).param_groups[0]["nesterov"]
