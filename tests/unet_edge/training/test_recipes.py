"""The values of the seed's recipe, and values given beside a recipe."""

import pytest

from unet_edge.training.config import TrainConfig
from unet_edge.training.recipes import RECIPES
from unet_edge_runtime.errors import InputError


def test_seed_recipe_is_the_seeds():
    config = TrainConfig.from_recipe("seed")
    assert (config.learning_rate, config.weight_decay, config.momentum) == (1e-5, 1e-8, 0.999)
    assert (config.gradient_clipping, config.patience, config.batch_size, config.epochs) == (1.0, 5, 1, 5)
    assert (config.decay, config.warmup, config.flip, config.loss) == ("none", 0.0, "none", "ce+pooled_dice")
    assert (config.optimizer, config.augment, config.ema) == ("rmsprop", "none", 0.0)
    assert set(RECIPES) >= {"seed", "default"}


def test_values_given_win_over_the_recipe():
    assert TrainConfig.from_recipe("seed", learning_rate=0.1, epochs=None).learning_rate == 0.1
    with pytest.raises(InputError, match=r"no recipe 'sead'; there are default, .*seed"):
        TrainConfig.from_recipe("sead")
    with pytest.raises(InputError, match="batch size must be above 0"):
        TrainConfig(batch_size=0)
