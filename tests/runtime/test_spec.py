"""The contract that travels: it comes back as it left, and no file can make it lie."""

from __future__ import annotations

import contextlib
import copy
import json
import random

import numpy as np
import pytest

from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.mask import labels_from_mask, mask_image, overlay
from unet_edge_runtime.spec import SPEC_VERSION, ClassInfo, ModelSpec, class_color
from unet_edge_runtime.transform import postprocess, preprocess


@pytest.fixture
def full(make_spec):
    return make_spec(
        ((0, 0, 0), (255, 0, 0), (0, 128, 0)),
        ignore_value=(255, 255, 255),
        scale=0.5,
        resample="bilinear",
        padding="edge",
        mean=(0.1, 0.2, 0.3),
        std=(1.0, 2.0, 3.0),
        background=None,
        threshold=0.25,
        head="probabilities",
        input_size=(320, 480),
        training_sizes=((320, 480), (160, 240)),
        provenance={"scores": {"dice": 0.5}, "list": [1, "é", None]},
    )


def test_it_comes_back_as_it_left(make_spec, full):
    for spec in (full, make_spec(), make_spec((0, 300), outputs=1), make_spec(tuple(range(254)))):
        again = ModelSpec.from_json(spec.to_json())
        assert again == spec
        assert again.to_json() == spec.to_json()
        assert "\n" not in spec.to_json()
        hash(again.classes)


def test_keys_of_later_versions_are_left_out(full):
    data = json.loads(full.to_json())
    assert ModelSpec.from_dict({**data, "colour_space": "sRGB"}) == full


def test_a_newer_version_is_refused(full):
    data = json.loads(full.to_json())
    with pytest.raises(ModelFileError, match=r"m\.onnx was made by a newer unet-edge .* upgrade"):
        ModelSpec.from_dict({**data, "version": SPEC_VERSION + 1}, "m.onnx")


HOSTILE = {
    "version": [None, "1", [1]],
    "channels": [0, 2, "3", 3.5, None, True, [3], 10**30, float("nan")],
    "outputs": [0, -1, 7, "3", None, 1e400],
    "multiple": [0, -16, 1 << 20, "16", 16.5, None, float("inf"), True],
    "scale": [0, -1, 1e9, "0.5", None, float("nan"), float("inf"), [0.5], 10**400],
    "resample": ["cubic", 3, None, ["bicubic"]],
    "padding": ["wrap", 1, None, ["zero"]],
    "mean": [[0.5], ["a", "b", "c"], 5, {"a": 1}, [None] * 3, [float("nan")] * 3],
    "std": [[0, 0, 0], [-1, 1, 1], [1, 1], ["1", "1", "1"]],
    "threshold": [0, 1, "0.5", None, float("nan"), -0.1],
    "head": ["mask", 1, None, []],
    "input_name": [None, 5, ["x"]],
    "output_name": [None, 5],
    "precision": [None, 16],
    "background": [3, -1, 0.5, "0", True],
    "ignore_value": [-1, 1 << 20, "255", [1, 2], [300, 0, 0], [0, 0, 0], 0.5, {}],
    "input_size": [
        [0, 480],
        [320],
        [320, 480, 3],
        320,
        "320x480",
        [1 << 16, 1 << 16],
        [321, 480],
        [320.0, 480],
        [],
        [True, 4],
    ],
    "training_sizes": [[5], [[5]], [["a", "b"]], "abc", [[1 << 40, 1 << 40]], 7],
    "provenance": ["abc", 5, [1]],
    "classes": [[], {}, 5, "ab", [1, 2, 3], [{"name": "a"}] * 3, None],
}
CASES = [(key, value) for key, values in HOSTILE.items() for value in values]


@pytest.mark.parametrize(("key", "value"), CASES, ids=[f"{key} {str(value)[:20]}" for key, value in CASES])
def test_an_impossible_field_is_refused(full, key, value):
    data = {**json.loads(full.to_json()), key: value}
    with pytest.raises(ModelFileError, match=r"m\.onnx"):
        ModelSpec.from_dict(data, "m.onnx")


@pytest.mark.parametrize("key", ["version", "channels", "classes", "outputs", "multiple"])
def test_a_missing_field_is_refused(full, key):
    data = json.loads(full.to_json())
    del data[key]
    with pytest.raises(ModelFileError, match="damaged spec"):
        ModelSpec.from_dict(data)


@pytest.mark.parametrize(
    "broken",
    [
        {"name": 5},
        {"value": "0"},
        {"value": -1},
        {"value": 1 << 16},
        {"value": [0, 0]},
        {"value": [0, 0, 256]},
        {"value": 7},
        {"value": [255, 0, 0]},
        {"value": True},
        {"color": [0, 0]},
        {"color": [0, 0, 300]},
        {"color": 5},
        {"color": [0.5, 0, 0]},
    ],
)
def test_an_impossible_class_is_refused(full, broken):
    """Among them: a grey value among colours, and the value of another class."""
    data = json.loads(full.to_json())
    data["classes"][0].update(broken)
    with pytest.raises(ModelFileError):
        ModelSpec.from_dict(data)


@pytest.mark.parametrize("text", ["", "{", "null", "5", "[]", '"x"', "[" * 100_000, "1" * 5000, '{"version": 1}'])
def test_a_text_that_is_no_spec(text):
    with pytest.raises(ModelFileError, match=r"m\.onnx carries a damaged spec .*: export it again"):
        ModelSpec.from_json(text, "m.onnx")


VALUES = [
    None,
    True,
    -1,
    0,
    1,
    2,
    3,
    255,
    1 << 40,
    1e308,
    -0.5,
    0.5,
    "",
    "logits",
    [],
    [1, 2, 3],
    [[8, 8]],
    {},
    {"a": 1},
]


def altered(data, rng):
    """A copy with one to three places changed, removed or exchanged, at any depth."""
    data = json.loads(json.dumps(data))
    for _ in range(rng.randint(1, 3)):
        places = []
        stack = [data]
        while stack:
            node = stack.pop()
            for key in list(node) if isinstance(node, dict) else range(len(node)):
                places.append((node, key))
                if isinstance(node[key], dict | list):
                    stack.append(node[key])
        node, key = rng.choice(places)
        if rng.random() < 0.2:
            del node[key]
        else:
            node[key] = copy.deepcopy(rng.choice(VALUES))
    return data


@pytest.mark.filterwarnings("error")
def test_whatever_is_accepted_can_be_used(make_spec, full):
    """A spec either is refused with our error, or works: nothing that it says makes a later step fall over."""
    rng = random.Random(0)
    image = np.full((9, 11, 3), 100, np.uint8)
    accepted = 0
    for step in range(1500):
        start = (full, make_spec(), make_spec((0, 1, 2), ignore_value=9))[step % 3]
        data = altered(json.loads(start.to_json()), rng)
        try:
            spec = ModelSpec.from_json(json.dumps(data))
        except ModelFileError:
            continue
        accepted += 1
        assert ModelSpec.from_json(spec.to_json()) == spec
        x = preprocess(image, spec)
        channels = 1 if spec.head == "classmap" else spec.outputs
        labels = postprocess(np.zeros((channels, *x.shape[1:]), np.float32), spec, (9, 11))
        assert mask_image(labels, spec).size == overlay(image, labels, spec).size == (11, 9)
        with contextlib.suppress(InputError):  # 0 need not be a value of the masks
            labels_from_mask(np.zeros((9, 11), np.int64), spec)
    assert 100 < accepted < 1400


@pytest.mark.parametrize("count", [1, 255, 300])
def test_the_number_of_classes_is_bounded(count):
    classes = tuple(ClassInfo(str(i), i, (0, 0, 0)) for i in range(count))
    with pytest.raises(ModelFileError, match="2 to 254 classes"):
        ModelSpec(channels=1, classes=classes, outputs=count, multiple=16)


def test_colours_are_many_and_different():
    colors = [class_color(i) for i in range(254)]
    assert len(set(colors)) > 245
    assert len(set(colors[:64])) == 64
    assert colors[0] == (0, 0, 0)
    assert all(0 <= c <= 255 for color in colors for c in color)
