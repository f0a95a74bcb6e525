"""Small trained networks in all three formats, and tools to plant a fault in each."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import onnx
import pytest
import torch
from onnx import numpy_helper

from tests.export.conftest import lively_model
from unet_edge.checkpoint import class_infos, read_checkpoint, save_checkpoint
from unet_edge_bench.layers import compare_layers
from unet_edge_export.mil import Package
from unet_edge_export.mil.schema import Model
from unet_edge_export.to_onnx import write_onnx
from unet_edge_runtime.spec import ModelSpec

SIZE = (64, 96)


def spec_for(model, **changes):
    outputs = model.config.classes
    fields = {"channels": model.config.in_channels, "outputs": outputs, "multiple": model.config.multiple}
    return ModelSpec(classes=class_infos(list(range(max(2, outputs)))), **fields | changes)


@pytest.fixture(scope="session")
def files(tmp_path_factory):
    """A function (format, up=..., outputs=..., channels=..., depth=..., model=..., **spec) -> file, made once."""
    made = {}

    def make(format, up="bilinear", outputs=2, channels=3, depth=2, model=None, **spec):
        key = (format, up, outputs, channels, depth, id(model), *sorted(spec.items()))
        if key not in made:
            folder = tmp_path_factory.mktemp("files")
            made[key] = write(format, model or lively_model(channels, outputs, depth, up), folder / "net", **spec)
        return made[key]

    return make


def write(format, model, stem, **spec):
    if format == "checkpoint":
        save_checkpoint(stem.with_suffix(".pth"), model, spec_for(model, **spec), {})
        return stem.with_suffix(".pth")
    if format == "onnx":
        write_onnx(model, spec_for(model, **spec), stem.with_suffix(".onnx"))
        return stem.with_suffix(".onnx")
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    from unet_edge_export.to_coreml import write_coreml

    settings = {"input_size": SIZE, "precision": "fp16", **spec}
    write_coreml(model, spec_for(model, **settings), stem.with_suffix(".mlpackage"))
    return stem.with_suffix(".mlpackage")


@pytest.fixture
def departs(photo):
    """A function (reference, candidate) -> (name of the first layer that departs, reason)."""

    def compare(reference, candidate):
        report = compare_layers(reference, candidate, photo)
        return (report.first.name if report.first else None), report.reason

    return compare


class OnnxEditor:
    """A copy of an ONNX file under change."""

    def __init__(self, source):
        self.proto = onnx.load(source)
        self.graph = self.proto.graph

    def node(self, name):
        return next(node for node in self.graph.node if node.name == name)

    def weight(self, name):
        stored = next(each for each in self.graph.initializer if each.name == f"net.{name}")
        return numpy_helper.to_array(stored).copy()

    def set_weight(self, name, values):
        stored = next(each for each in self.graph.initializer if each.name == f"net.{name}")
        stored.CopyFrom(numpy_helper.from_array(values.astype(np.float32), stored.name))

    def set(self, node, attribute, value):
        kept = [each for each in node.attribute if each.name != attribute]
        del node.attribute[:]
        node.attribute.extend([*kept, onnx.helper.make_attribute(attribute, value)])

    def insert(self, node, **attributes):
        """A one-input operation behind a node: `insert(node, op="Mul", ...)` is done by the caller for others."""
        kind = attributes.pop("op")
        extra = attributes.pop("inputs", [])
        value = node.output[0]
        node.output[0] = f"{value}_before"
        new = onnx.helper.make_node(kind, [node.output[0], *extra], [value], name=f"planted_{kind}", **attributes)
        self.graph.node.insert(list(self.graph.node).index(node) + 1, new)

    def save(self, path):
        onnx.checker.check_model(self.proto, full_check=True)
        onnx.save(self.proto, path)
        return path


class PackageEditor:
    """A copy of a package under change."""

    def __init__(self, source, path):
        shutil.copytree(source, path)
        self.path = path
        self.package = Package.open(path)
        self._file = path / "Data" / "com.apple.CoreML" / "model.mlmodel"
        self.model = Model.FromString(self._file.read_bytes())

    def blob(self, name):
        """A writable view of a weight in the file; the name as in the checkpoint."""
        wanted = f"p_net_{name.replace('.', '_')}"
        operation = next(
            each
            for each in self.package.function().operations
            if each.type == "const" and each.name.startswith(wanted) and each.attributes["val"].in_weight_file
        )
        constant = operation.attributes["val"]
        file = self._file.parent / "weights" / "weight.bin"
        start = int(np.fromfile(file, "<u8", 1, offset=constant.blob[1] + 16)[0])
        return np.memmap(file, "<f2", "r+", start, tuple(constant.type.shape))

    def operations(self, kind):
        block = next(iter(self.model.mlProgram.functions["main"].block_specializations.values()))
        return [each for each in block.operations if each.type == kind]

    def constant(self, name):
        block = next(iter(self.model.mlProgram.functions["main"].block_specializations.values()))
        return next(each for each in block.operations if each.outputs and each.outputs[0].name == name)

    def save(self):
        self._file.write_bytes(self.model.SerializeToString())
        return self.path


@pytest.fixture
def edit_onnx(files):
    return lambda **network: OnnxEditor(files("onnx", **network))


@pytest.fixture
def edit_package(files, tmp_path):
    return lambda **network: PackageEditor(files("package", **network), tmp_path / "edited.mlpackage")


@pytest.fixture
def edit_checkpoint(files, tmp_path):
    """A function (change(weights), **network) -> a checkpoint with other weights."""

    def edit(change, **network):
        checkpoint = read_checkpoint(files("checkpoint", **network))
        model = checkpoint.build()
        weights = model.state_dict()
        with torch.no_grad():
            change(weights)
        save_checkpoint(tmp_path / "edited.pth", model, checkpoint.spec, {})
        return tmp_path / "edited.pth"

    return edit


LOUD = "down1.maxpool_conv.1.double_conv.2"


def loud_model(factor=150.0):
    """Weights that fit fp16, and values that do not, after the layer `LOUD`; later weights bring them back."""
    model = lively_model(up="bilinear")
    _, norm1, _, second, norm2, _ = model.down1.maxpool_conv[1].double_conv
    with torch.no_grad():
        # ReLU passes positive factors on.
        norm1.weight.mul_(factor)
        norm1.bias.mul_(factor)
        norm2.running_mean.mul_(factor)
        norm2.running_var.mul_(factor**2)
        norm2.weight.mul_(factor**2)
        norm2.bias.mul_(factor**2)
        model.down2.maxpool_conv[1].double_conv[0].weight.div_(factor**2)
        model.up1.conv.double_conv[0].weight[:, : second.out_channels].div_(factor**2)
    return model


__all__ = ["LOUD", "SIZE", "OnnxEditor", "PackageEditor", "Path", "loud_model", "spec_for", "write"]
