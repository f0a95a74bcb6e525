"""Checkpoints: ours come back whole, milesial's load as they are, everything else is refused in one line."""

from __future__ import annotations

import os
import pickle
import zipfile

import pytest
import torch

from unet_edge.checkpoint import SEED_SCALE, load_model, read_checkpoint, save_checkpoint
from unet_edge.model import UNet, UNetConfig
from unet_edge_runtime.errors import ModelFileError


@pytest.fixture
def model():
    torch.manual_seed(0)
    return UNet(UNetConfig(base_channels=4, depth=2)).eval()


@pytest.fixture
def ours(tmp_path, model, make_spec):
    path = tmp_path / "ours.pth"
    save_checkpoint(path, model, make_spec(scale=0.25), {"epoch": 3, "scores": {"dice": 0.5}, "rng": torch.arange(4)})
    return path


def altered(path, target, **changes):
    content = torch.load(path, weights_only=True)  # noqa: TID251
    content.update(changes)
    torch.save({key: value for key, value in content.items() if value is not None}, target)
    return target


def test_ours_comes_back_whole(ours, model, make_spec):
    checkpoint = read_checkpoint(ours)
    assert checkpoint.config == model.config
    assert checkpoint.spec == make_spec(scale=0.25)
    assert checkpoint.state["epoch"] == 3
    assert checkpoint.state["rng"].tolist() == [0, 1, 2, 3]
    x = torch.rand(1, 3, 8, 12)
    with torch.no_grad():
        assert torch.equal(checkpoint.build()(x), model(x))
    assert not checkpoint.build().training


def test_it_loads_without_unpickling_objects(ours):
    content = torch.load(ours, weights_only=True)  # noqa: TID251
    assert set(content) == {"format", "version", "config", "weights", "spec", "state"}


def test_writing_is_atomic(ours, model, make_spec):
    before = ours.read_bytes()
    with pytest.raises((pickle.PicklingError, AttributeError, TypeError)):
        save_checkpoint(ours, model, make_spec(), {"bad": lambda: None})
    assert ours.read_bytes() == before
    assert list(ours.parent.iterdir()) == [ours]


def test_its_scale_is_its_own(ours):
    assert read_checkpoint(ours, scale=0.25).spec.scale == 0.25
    with pytest.raises(ModelFileError, match=r"ours\.pth: was trained at scale 0\.25; leave --scale out"):
        read_checkpoint(ours, scale=0.5)


@pytest.mark.parametrize("classes", [1, 2, 3])
@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_milesials_without_mask_values(tmp_path, classes, up):
    model = UNet(UNetConfig(classes=classes, base_channels=4, depth=4, up=up)).eval()
    torch.save(model.state_dict(), tmp_path / "m.pth")
    loaded, spec = load_model(tmp_path / "m.pth")
    assert loaded.config == model.config
    assert [info.value for info in spec.classes] == list(range(max(2, classes)))
    assert (spec.outputs, spec.multiple, spec.scale, spec.channels) == (classes, 16, SEED_SCALE, 3)
    assert read_checkpoint(tmp_path / "m.pth", scale=1.0).spec.scale == 1.0


@pytest.mark.parametrize("values", [[0, 255], [0, 1], [[0, 0, 0], [255, 0, 0]], [0.0, 1.0]])
def test_milesials_with_mask_values(tmp_path, model, values):
    torch.save({**model.state_dict(), "mask_values": values}, tmp_path / "m.pth")
    spec = read_checkpoint(tmp_path / "m.pth").spec
    assert [info.value for info in spec.classes] == [tuple(v) if isinstance(v, list) else v for v in values]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ([0, 1, 2], "3 mask values for 2 classes"),
        (["a", "b"], "mask_values are damaged"),
        (5, "mask_values are damaged"),
        ([[0], [1]], "mask_values are damaged"),
        ([0, 0], "two classes have the same mask value"),
        ([0, -1], "is no mask value"),
    ],
)
def test_milesials_with_damaged_mask_values(tmp_path, model, values, message):
    torch.save({**model.state_dict(), "mask_values": values}, tmp_path / "m.pth")
    with pytest.raises(ModelFileError, match=rf"m\.pth: .*{message}"):
        read_checkpoint(tmp_path / "m.pth")


def one_line(path):
    with pytest.raises(ModelFileError) as caught:
        read_checkpoint(path)
    message = str(caught.value)
    assert message.startswith(str(path))
    assert "\n" not in message
    return message


def test_real_foreign_checkpoints(real_data):
    files = [path for path in sorted((real_data / "weights").rglob("*")) if path.suffix in (".pt", ".pth", ".ckpt")]
    assert len(files) >= 2
    for path in files:
        assert "not a checkpoint of" in one_line(path)


def test_a_pickle_with_code_is_not_run(tmp_path):
    class Bomb:
        def __reduce__(self):
            return os.mkdir, (str(tmp_path / "ran"),)

    torch.save({"inc.double_conv.0.weight": Bomb()}, tmp_path / "zip.pth")
    (tmp_path / "raw.pth").write_bytes(pickle.dumps(Bomb()))
    for name in ("zip.pth", "raw.pth"):
        assert "not a checkpoint of tensors and plain data" in one_line(tmp_path / name)
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("share", [0.0, 0.1, 0.5, 0.9, 0.999])
def test_truncated(ours, tmp_path, share):
    whole = ours.read_bytes()
    (tmp_path / "cut.pth").write_bytes(whole[: int(len(whole) * share)])
    one_line(tmp_path / "cut.pth")


def test_garbage(ours, tmp_path):
    """Every message names the file; altered bytes inside the weights alone cannot be seen."""
    import random

    rng = random.Random(0)
    whole = ours.read_bytes()
    for _ in range(60):
        data = bytearray(whole)
        for _ in range(20):
            data[rng.randrange(len(data))] = rng.randrange(256)
        (tmp_path / "bad.pth").write_bytes(data)
        try:
            read_checkpoint(tmp_path / "bad.pth")
        except ModelFileError as error:
            assert str(tmp_path / "bad.pth") in str(error)  # noqa: PT017
    for content in (b"", b"garbage" * 50, b"PK\x03\x04", b"\x80\x02."):
        (tmp_path / "bad.pth").write_bytes(content)
        one_line(tmp_path / "bad.pth")


def test_what_is_not_there(tmp_path):
    assert "no such checkpoint" in one_line(tmp_path / "missing.pth")
    (tmp_path / "folder.pth").mkdir()
    one_line(tmp_path / "folder.pth")


@pytest.mark.parametrize("content", [[1, 2], torch.zeros(3), {"a": 1}, {"state_dict": {"a": torch.zeros(1)}}, {}])
def test_other_contents(tmp_path, content):
    torch.save(content, tmp_path / "other.pth")
    one_line(tmp_path / "other.pth")


@pytest.mark.parametrize(
    "changes",
    [
        {"version": 99},
        {"version": "2"},
        {"version": [1]},
        {"weights": None},
        {"weights": [1]},
        {"weights": {"a": 1}},
        {"weights": {}},
        {"spec": None},
        {"spec": 5},
        {"spec": "{}"},
        {"state": None},
        {"state": 5},
    ],
    ids=str,
)
def test_our_format_with_damage(ours, tmp_path, changes):
    one_line(altered(ours, tmp_path / "bad.pth", **changes))


def test_newer_versions_are_named(ours, tmp_path, make_spec):
    assert "newer unet-edge: upgrade" in one_line(altered(ours, tmp_path / "new.pth", version=2))


def test_a_spec_of_another_network(ours, tmp_path, make_spec):
    path = altered(ours, tmp_path / "bad.pth", spec=make_spec(channels=1).to_json())
    assert "spec does not describe its weights" in one_line(path)


def test_milesial_weights_in_channels_last_load(tmp_path, model):
    weights = model.to(memory_format=torch.channels_last).state_dict()
    torch.save(weights, tmp_path / "m.pth")
    loaded = read_checkpoint(tmp_path / "m.pth").build().state_dict()
    assert all(torch.equal(loaded[name], value) for name, value in weights.items())


def test_a_small_file_that_claims_huge_weights_is_refused(tmp_path, model):
    with torch.device("meta"):
        shapes = {name: value.shape for name, value in UNet(UNetConfig(base_channels=2048)).state_dict().items()}
    weights = {name: torch.zeros(()).expand(shape) for name, shape in shapes.items()}
    torch.save(weights, tmp_path / "huge.pth")
    assert (tmp_path / "huge.pth").stat().st_size < 1e6
    with pytest.raises(ModelFileError, match="claims more weights than it holds"):
        read_checkpoint(tmp_path / "huge.pth")


def test_a_compressed_checkpoint_is_refused_before_it_is_unpacked(tmp_path):
    torch.save({"weights": torch.zeros(1 << 20)}, tmp_path / "plain.pth")
    with (
        zipfile.ZipFile(tmp_path / "plain.pth") as plain,
        zipfile.ZipFile(tmp_path / "small.pth", "w", zipfile.ZIP_DEFLATED) as small,
    ):
        for entry in plain.infolist():
            small.writestr(entry.filename, plain.read(entry))
    assert (tmp_path / "small.pth").stat().st_size < 1e5
    with pytest.raises(ModelFileError, match="is compressed, as no checkpoint of PyTorch is"):
        read_checkpoint(tmp_path / "small.pth")
