"""ONNX files: what is in them, and that every size gives PyTorch's result."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import onnxruntime
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge_export.graph import ExportGraph
from unet_edge_export.to_onnx import write_onnx
from unet_edge_runtime.errors import BackendError, MissingExtraError
from unet_edge_runtime.onnx_backend import OnnxBackend
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .conftest import lively_model

PLAIN_OPS = {"Conv", "ConvTranspose", "Relu", "MaxPool", "Concat", "Resize"}


def spec_for(channels: int = 3, outputs: int = 2, **changes: object) -> ModelSpec:
    classes = class_infos(list(range(max(2, outputs))))
    return ModelSpec(channels=channels, classes=classes, outputs=outputs, multiple=4, **changes)


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize("size", [None, (32, 48)])
def test_the_graph_is_plain(tmp_path, up, size):
    spec = spec_for(input_size=size)
    write_onnx(lively_model(up=up), spec, tmp_path / "m.onnx")
    proto = onnx.load(tmp_path / "m.onnx")
    assert {node.op_type for node in proto.graph.node} <= PLAIN_OPS
    assert [(entry.domain, entry.version) for entry in proto.opset_import] == [("", 18)]
    assert proto.ir_version == 8, "ONNX Runtime 1.17 must be able to load it"
    assert [value.name for value in proto.graph.input] == ["image"]
    assert [value.name for value in proto.graph.output] == ["logits"]
    assert [path.name for path in tmp_path.iterdir()] == ["m.onnx"], "weights must be inside"


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_dynamic_batch_height_and_width_match_torch(tmp_path, up):
    model = lively_model(up=up, depth=3)
    write_onnx(model, spec_for().replace(multiple=8), tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    assert session.get_inputs()[0].shape == ["batch", 3, "height", "width"]
    assert session.get_outputs()[0].shape == ["batch", 2, "height", "width"]
    for shape in [(1, 3, 8, 8), (2, 3, 16, 24), (1, 3, 8, 200), (3, 3, 104, 40), (1, 3, 256, 264)]:
        x = torch.rand(shape, generator=torch.Generator().manual_seed(0))
        with torch.no_grad():
            expected = model(x).numpy()
        got = session.run(None, {"image": x.numpy()})[0]
        assert np.abs(got - expected).max() < 1e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize(("outputs", "head"), [(1, "logits"), (3, "probabilities"), (1, "classmap"), (3, "classmap")])
def test_channels_outputs_and_heads(tmp_path, channels, outputs, head):
    spec = spec_for(channels, outputs, head=head, output_name=head, input_size=(16, 24))
    write_onnx(lively_model(channels, outputs), spec, tmp_path / "m.onnx")
    session = onnxruntime.InferenceSession(tmp_path / "m.onnx", providers=["CPUExecutionProvider"])
    output = session.get_outputs()[0]
    assert output.name == head
    assert output.shape == [1, 1 if head == "classmap" else outputs, 16, 24]
    assert output.type == ("tensor(uint8)" if head == "classmap" else "tensor(float)")


def test_the_spec_comes_back_from_the_file(tmp_path):
    spec = spec_for(
        mean=(0.4, 0.5, 0.6), std=(0.2, 0.3, 0.4), scale=0.5, input_size=(32, 48), provenance={"scores": {"dice": 0.9}}
    )
    write_onnx(lively_model(), spec, tmp_path / "m.onnx")
    assert OnnxBackend(tmp_path / "m.onnx").spec == spec
    assert [entry.key for entry in onnx.load(tmp_path / "m.onnx").metadata_props] == [METADATA_KEY]


def test_nothing_of_this_machine_is_left_in_the_file(tmp_path):
    write_onnx(lively_model(), spec_for(), tmp_path / "m.onnx")
    content = (tmp_path / "m.onnx").read_bytes()
    for trace in (str(Path(__file__).resolve().parents[2]), "site-packages", "stack_trace", ".py"):
        assert trace.encode() not in content


def test_two_exports_are_the_same_bytes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        write_onnx(lively_model(), spec_for(), tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


def test_the_exporter_keeps_silent(tmp_path, capfd):
    write_onnx(lively_model(), spec_for(), tmp_path / "m.onnx")
    assert capfd.readouterr() == ("", "")


def test_a_missing_package_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "onnxscript", None)
    with pytest.raises(MissingExtraError, match=r"onnxscript: pip install 'unet-edge\[export\]'"):
        write_onnx(lively_model(), spec_for(), tmp_path / "m.onnx")


def test_a_failing_exporter_is_one_line(tmp_path, monkeypatch):
    def fail(*args, **kwargs):
        raise RuntimeError("first\nsecond")

    monkeypatch.setattr(torch.onnx, "export", fail)
    with pytest.raises(BackendError, match=r"could not convert the network to ONNX \(first\)"):
        write_onnx(lively_model(), spec_for(), tmp_path / "m.onnx")


@pytest.mark.parametrize(
    ("up", "outputs", "head", "values"),
    [
        ("transposed", 2, "logits", ()),
        ("bilinear", 1, "probabilities", ()),
        ("bilinear", 2, "classmap", ()),
        ("bilinear", 3, "classmap", (0, 100, 17)),
    ],
)
def test_nodes_are_called_after_the_layers_they_come_from(tmp_path, up, outputs, head, values):
    spec = spec_for(3, outputs, head=head, output_name=head, label_values=values)
    model = lively_model(outputs=outputs, up=up)
    write_onnx(model, spec, tmp_path / "m.onnx")
    nodes = {node.name: node for node in onnx.load(tmp_path / "m.onnx").graph.node}
    assert len(nodes) == len(onnx.load(tmp_path / "m.onnx").graph.node), "names are unique"
    layers = {name.removeprefix("net.") for name, module in ExportGraph(model, spec).named_modules() if name}
    for name, node in nodes.items():
        assert name in layers | {"up1.cat", "up2.cat"} or name.startswith("head."), name
        for weight in (each for each in node.input if each.startswith("net.")):
            assert weight in (f"net.{name}.weight", f"net.{name}.bias")
    assert nodes["inc.double_conv.1"].op_type == "Relu"
    assert nodes["down2.maxpool_conv.0"].op_type == "MaxPool"
    assert nodes["up1.up"].op_type == ("ConvTranspose" if up == "transposed" else "Resize")
    assert nodes["up1.cat"].op_type == "Concat"
    assert nodes["outc.conv"].op_type == "Conv"
    heads = {
        "logits": [],
        "probabilities": ["head.sigmoid"],
        "classmap": ["head.argmax", "head.cast", "head.cast_1", "head.conv2d", "head.greater_equal"]
        if values
        else ["head.argmax", "head.cast"],
    }
    assert sorted(name for name in nodes if name.startswith("head")) == heads[head]
