"""A three-class network that sees colours, its ONNX file, drawn photos with masks, and ways to spoil a model."""

from __future__ import annotations

import numpy as np
import pytest

from tests.drawn import VALUES, write_pairs
from unet_edge_bench.verify import Model, Overrides, compare, samples_of

IMAGENET = {"mean": (0.485, 0.456, 0.406), "std": (0.229, 0.224, 0.225)}
LAYER = "up1.conv.double_conv.0"


@pytest.fixture(scope="session")
def pairs(tmp_path_factory):
    """Folders of three images and their masks."""
    return write_pairs(tmp_path_factory.mktemp("drawn"), 3)


@pytest.fixture(scope="session")
def samples(pairs):
    images, masks = (sorted(folder.iterdir()) for folder in pairs)
    return samples_of(images, masks)


@pytest.fixture(scope="session")
def model(make_model):
    return make_model(seed=5, classes=3)


@pytest.fixture(scope="session")
def spec(make_spec):
    return make_spec(VALUES)


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory, model, spec):
    from unet_edge.checkpoint import save_checkpoint

    path = tmp_path_factory.mktemp("verify") / "net.pth"
    save_checkpoint(path, model, spec, {})
    return path


@pytest.fixture(scope="session")
def onnx_file(checkpoint):
    from unet_edge_export import export_model

    return export_model(checkpoint, "onnx", checkpoint.with_name("net.onnx"), dynamic=True).path


@pytest.fixture(scope="session")
def fixed_onnx(checkpoint):
    """As `onnx_file`, for 64x96 only: larger than the images."""
    from unet_edge_export import export_model

    return export_model(checkpoint, "onnx", checkpoint.with_name("fixed.onnx"), size=(64, 96)).path


@pytest.fixture
def spoil_checkpoint(checkpoint, tmp_path):
    """A function (edit of the network or None, **changes of the spec) -> a checkpoint."""
    import torch

    from unet_edge.checkpoint import read_checkpoint, save_checkpoint

    def spoil(edit=None, **changes):
        content = read_checkpoint(checkpoint)
        network = content.build()
        if edit is not None:
            with torch.no_grad():
                edit(network)
        path = tmp_path / "spoilt.pth"
        save_checkpoint(path, network, content.spec.replace(**changes), {})
        return path

    return spoil


@pytest.fixture
def spoil_onnx(onnx_file, tmp_path):
    """A function (layer or None, edit of its weights, **changes of the spec) -> an ONNX file."""
    import onnx
    from onnx import numpy_helper

    from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

    def spoil(layer=None, edit=None, **changes):
        proto = onnx.load(onnx_file)
        weights = [i for i in proto.graph.initializer if layer and i.name.endswith(f"{layer}.weight")]
        assert len(weights) == (layer is not None), [i.name for i in proto.graph.initializer]
        for weight in weights:
            value = edit(numpy_helper.to_array(weight)).astype(np.float32)
            weight.CopyFrom(numpy_helper.from_array(value, weight.name))
        for entry in proto.metadata_props:
            if entry.key == METADATA_KEY:
                entry.value = ModelSpec.from_json(entry.value).replace(**changes).to_json()
        path = tmp_path / "spoilt.onnx"
        onnx.save(proto, path)
        return path

    return spoil


@pytest.fixture
def judge(checkpoint, samples):
    """A function (candidate file, reference file, **bounds) -> the report of the pair."""

    def judged(candidate, reference=None, **bounds):
        sides = Model.open(reference or checkpoint), Model.open(candidate)
        return compare(sides[0], sides[1:], samples, Overrides(**bounds)).pairs[0]

    return judged


def one_percent(weights):
    """One value in a hundred changed by four standard deviations."""
    rng, changed = np.random.default_rng(0), weights.copy()
    places = rng.choice(changed.size, max(1, changed.size // 100), replace=False)
    changed.reshape(-1)[places] += 4 * changed.std()
    return changed
