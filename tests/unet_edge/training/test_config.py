import dataclasses
import json
import subprocess
import sys

import pytest

from unet_edge.training.config import TrainConfig, parse_class_weights, parse_save_every
from unet_edge.training.recipes import RECIPE_NOTES, RECIPES
from unet_edge_runtime.errors import InputError


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"epochs": 0}, "epochs must be above 0, not 0"),
        ({"accumulate": 3}, "a batch of 2 cannot be divided into 3 parts: lower --accumulate or raise --batch-size"),
        ({"ema": 1.0}, "ema must lie from 0 to below 1, not 1.0"),
        ({"freeze_norm": 1.5}, "freeze norm must lie from 0 to 1, not 1.5"),
        ({"early_stop": -1}, "early stop must not be negative, as -1 is"),
        ({"optimizer": "adam"}, "optimizer must be one of rmsprop, adamw, sgd, not 'adam'"),
        ({"precision": "fp8"}, "precision must be one of auto, fp32, bf16, fp16, not 'fp8'"),
        ({"checkpointing": True}, "checkpointing must be of type str, not True"),
        ({"epochs": 1.5}, "epochs must be of type int, not 1.5"),
        ({"seed": True}, "seed must be of type int, not True"),
        ({"crop": (32,)}, r"crop must be a height and a width, not \(32,\)"),
        ({"crop": (32, 0)}, "both sides of a crop must be above 0, not 32x0"),
        ({"loss": "ce+dise"}, "'dise' is no term"),
        ({"class_weights": "1,-2"}, "class weights must be none, balanced or numbers above 0, such as 1,2,0.5"),
        ({"learning_rate": float("nan")}, "learning rate must be above 0"),
    ],
)
def test_an_impossible_value_is_said_in_one_line(values, message):
    with pytest.raises(InputError, match=message) as caught:
        TrainConfig(**values)
    assert "\n" not in str(caught.value)


def test_it_goes_through_json():
    config = TrainConfig(crop=(32, 48), ema=0.99, save_minutes=2.5, class_weights="balanced")
    assert TrainConfig.from_dict(json.loads(json.dumps(dataclasses.asdict(config)))) == config


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"amp": True}, {"precision": "auto"}),
        ({"amp": False}, {"precision": "fp32"}),
        ({"checkpointing": True}, {"checkpointing": "all"}),
        ({"checkpointing": False}, {"checkpointing": "none"}),
        ({"pooled_dice": True}, {"loss": "ce+pooled_dice"}),
        ({"pooled_dice": False, "unheard_of": 1}, {"loss": "ce+dice"}),
        ({"freeze_norm": 0.5}, {"norm_images": 0}),
        ({"freeze_norm": 0.5, "norm_images": 8}, {"norm_images": 8}),
    ],
)
def test_a_configuration_of_an_earlier_version_still_loads(old, new):
    assert TrainConfig.from_dict({"epochs": 7, **old}) == TrainConfig(epochs=7, **new)


@pytest.mark.parametrize(
    ("text", "steps", "minutes"), [("50", 50, 0.0), ("10m", 0, 10.0), ("0.5m", 0, 0.5)]
)  # fmt: skip
def test_save_every_is_steps_or_minutes(text, steps, minutes):
    assert parse_save_every(text) == {"save_steps": steps, "save_minutes": minutes}


@pytest.mark.parametrize("text", ["", "m", "0", "-3", "1.5", "10s", "nanm", "infm"])
def test_save_every_refuses_the_rest(text):
    with pytest.raises(InputError, match="steps, such as 50, or of minutes, such as 10m"):
        parse_save_every(text)


def test_class_weights_are_numbers():
    assert parse_class_weights("1, 2,0.5") == (1.0, 2.0, 0.5)
    assert parse_class_weights("balanced") is parse_class_weights("none") is None


def test_every_recipe_is_valid_and_explained():
    assert RECIPES.keys() == RECIPE_NOTES.keys()
    for name in RECIPES:
        assert TrainConfig.from_recipe(name).recipe == name


def test_the_default_recipe_is_what_python_gets_without_one():
    assert RECIPES["default"] == {}
    assert TrainConfig.from_recipe("default") == TrainConfig()


def test_the_seeds_recipe_leaves_nothing_of_ours_to_chance():
    ours = {"recipe", "precision", "checkpointing", "compile", "sync_norm", "deterministic", "seed", "workers", "cache"}
    ours |= {"fast_decode", "save_steps", "save_minutes"}
    assert RECIPES["seed"].keys() | ours == {field.name for field in dataclasses.fields(TrainConfig)}


def test_nothing_of_it_needs_torch():
    code = "import sys; sys.modules['torch'] = None; import unet_edge.cli.train"
    subprocess.run([sys.executable, "-c", code], check=True)
