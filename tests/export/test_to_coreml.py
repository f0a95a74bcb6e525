"""Core ML packages, read back from their files; executing them needs a Mac."""

from __future__ import annotations

import json
import logging
import sys
import warnings

import numpy as np
import pytest

from unet_edge.checkpoint import class_infos
from unet_edge_export.graph import fold_batch_norm
from unet_edge_export.to_coreml import describe_package, takes_image, write_coreml
from unet_edge_runtime.errors import MissingExtraError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .conftest import lively_model

PLAIN_OPS = {"const", "cast", "mul", "conv", "conv_transpose", "relu", "max_pool", "concat", "upsample_bilinear"}
FLOAT16, FLOAT32, INT32 = 65552, 65568, 131104  # ArrayFeatureType.ArrayDataType
GRAYSCALE, RGB = 10, 20  # ImageFeatureType.ColorSpace


@pytest.fixture
def ct():
    logging.disable(logging.WARNING)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            return pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    finally:
        logging.disable(logging.NOTSET)


def spec_for(channels: int = 3, outputs: int = 2, **changes: object) -> ModelSpec:
    changes = {"input_size": (32, 48), "precision": "fp16", **changes}
    classes = class_infos(list(range(max(2, outputs))))
    return ModelSpec(channels=channels, classes=classes, outputs=outputs, multiple=4, **changes)


def convert(ct, path, spec, up="transposed", **options):
    write_coreml(lively_model(spec.channels, spec.outputs, up=up), spec, path, **options)
    return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def operations(description):
    function = description.mlProgram.functions["main"]
    return list(function.block_specializations[function.opset].operations)


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
def test_the_default_package(ct, tmp_path, up):
    spec = spec_for(provenance={"checkpoint": "best.pth", "checkpoint_sha256": "abcdef0123456789"})
    made = convert(ct, tmp_path / "m.mlpackage", spec, up)
    assert made.specificationVersion == 8  # iOS 17, macOS 14
    (image,), (output,) = made.description.input, made.description.output
    assert (image.name, output.name) == ("image", "logits")
    assert image.type.WhichOneof("Type") == "imageType"
    assert (image.type.imageType.height, image.type.imageType.width) == (32, 48)
    assert image.type.imageType.colorSpace == RGB
    assert list(output.type.multiArrayType.shape) == [1, 2, 32, 48]
    assert output.type.multiArrayType.dataType == FLOAT16
    ops = operations(made)
    assert {op.type for op in ops} <= PLAIN_OPS
    assert all(op.outputs[0].type.tensorType.dataType == 10 for op in ops if op.type == "conv"), "fp16 arithmetic"
    scale = next(op for op in ops if op.type == "mul")
    factor = next(op for op in ops if op.outputs[0].name == scale.inputs["y"].arguments[0].name)
    value = factor.attributes["val"].immediateValue.tensor.floats.values[0]
    assert value == pytest.approx(1 / 255, rel=1e-6)


def test_what_a_package_says_about_itself(ct, tmp_path):
    spec = spec_for(provenance={"checkpoint": "best.pth", "checkpoint_sha256": "abcdef0123456789", "license": "CC0"})
    made = convert(ct, tmp_path / "m.mlpackage", spec).description
    assert made.metadata.shortDescription == "U-Net segmentation into 2 classes: background, foreground"
    assert "best.pth" in made.metadata.author
    assert made.metadata.license == "CC0"
    assert made.metadata.versionString == "abcdef012345"
    assert "RGB picture, 8 bits, 32x48" in made.input[0].shortDescription
    assert made.output[0].shortDescription == "(1, 2, height, width): logits of each class"
    assert ModelSpec.from_json(made.metadata.userDefined[METADATA_KEY]) == spec
    preview = json.loads(made.metadata.userDefined["com.apple.coreml.model.preview.params"])
    assert preview == {"labels": ["background", "foreground"], "colors": ["000000", "E69F00"]}


def test_grey_pictures(ct, tmp_path):
    made = convert(ct, tmp_path / "m.mlpackage", spec_for(channels=1))
    assert made.description.input[0].type.imageType.colorSpace == GRAYSCALE


@pytest.mark.parametrize("changes", [{"channels": 4}, {"bits": 16}, {"mean": (0.5,) * 3, "std": (0.2,) * 3}])
@pytest.mark.parametrize(("precision", "data_type"), [("fp16", FLOAT16), ("fp32", FLOAT32)])
def test_what_is_no_plain_picture_is_an_array(ct, tmp_path, changes, precision, data_type):
    spec = spec_for(**changes, precision=precision)
    assert not takes_image(spec)
    made = convert(ct, tmp_path / "m.mlpackage", spec)
    array = made.description.input[0].type.multiArrayType
    assert list(array.shape) == [1, spec.channels, 32, 48]
    assert array.dataType == data_type
    assert made.description.output[0].type.multiArrayType.dataType == data_type


def test_fp32_arithmetic(ct, tmp_path):
    made = convert(ct, tmp_path / "m.mlpackage", spec_for(precision="fp32"))
    assert all(op.outputs[0].type.tensorType.dataType == 11 for op in operations(made) if op.type == "conv")
    assert made.description.output[0].type.multiArrayType.dataType == FLOAT32


@pytest.mark.parametrize(("target", "version"), [("macOS13", 7), ("macOS15", 9)])
def test_targets(ct, tmp_path, target, version):
    assert convert(ct, tmp_path / "m.mlpackage", spec_for(), target=target).specificationVersion == version


@pytest.mark.parametrize(
    ("outputs", "head", "op"),
    [
        (1, "probabilities", "sigmoid"),
        (3, "probabilities", "softmax"),
        (1, "classmap", "greater"),
        (3, "classmap", "reduce_argmax"),
    ],
)
def test_heads(ct, tmp_path, outputs, head, op):
    made = convert(ct, tmp_path / "m.mlpackage", spec_for(outputs=outputs, head=head, output_name=head))
    (output,) = made.description.output
    assert output.name == head
    assert output.type.multiArrayType.dataType == (INT32 if head == "classmap" else FLOAT16)
    assert list(output.type.multiArrayType.shape) == [1, 1 if head == "classmap" else outputs, 32, 48]
    assert op in {each.type for each in operations(made)}


def test_the_converter_keeps_silent(ct, tmp_path, capfd):
    write_coreml(lively_model(), spec_for(), tmp_path / "m.mlpackage")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_the_weights_are_those_of_the_checkpoint(ct, tmp_path):
    """The file's own constants, decoded by coremltools' reader, against the folded network."""
    from coremltools.converters.mil.frontend.milproto.load import load

    write_coreml(lively_model(), spec_for(precision="fp32"), tmp_path / "m.mlpackage")
    package = ct.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)
    program = load(package.get_spec(), specification_version=8, file_weights_dir=package.weights_dir)
    convolutions = [op for op in program.functions["main"].operations if op.op_type == "conv"]
    folded = fold_batch_norm(lively_model())
    assert np.array_equal(convolutions[0].weight.val, folded.inc.double_conv[0].weight.numpy())
    assert np.array_equal(convolutions[-1].weight.val, folded.outc.conv.weight.numpy())


def test_a_package_is_described_without_running_it(ct, tmp_path):
    spec = spec_for(provenance={"checkpoint_sha256": "abcdef0123456789"})
    write_coreml(lively_model(), spec, tmp_path / "m.mlpackage")
    facts = describe_package(tmp_path / "m.mlpackage")
    assert facts["interface"] == {"image": ["RGB picture", 32, 48], "logits": ["FLOAT16", 1, 2, 32, 48]}
    assert ModelSpec.from_dict(facts["spec"]) == spec
    assert facts["specification"] == 8
    assert facts["version"] == "abcdef012345"
    assert facts["operations"]["conv"] == 11
    assert facts["parameters"] == sum(parameter.numel() for parameter in fold_batch_norm(lively_model()).parameters())


def test_a_damaged_or_foreign_package_is_one_line(ct, tmp_path):
    with pytest.raises(ModelFileError, match="no such Core ML package"):
        describe_package(tmp_path / "none.mlpackage")
    (tmp_path / "empty.mlpackage").mkdir()
    with pytest.raises(ModelFileError, match="not a readable Core ML package"):
        describe_package(tmp_path / "empty.mlpackage")
    write_coreml(lively_model(), spec_for(), tmp_path / "m.mlpackage")
    model = ct.models.MLModel(str(tmp_path / "m.mlpackage"), skip_model_load=True)
    del model.user_defined_metadata[METADATA_KEY]
    model.save(str(tmp_path / "foreign.mlpackage"))
    with pytest.raises(ModelFileError, match=f"carries no {METADATA_KEY}"):
        describe_package(tmp_path / "foreign.mlpackage")


def test_a_missing_coremltools_is_named(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "coremltools", None)
    with pytest.raises(
        MissingExtraError, match=r"export to Core ML needs coremltools: pip install 'unet-edge\[export\]'"
    ):
        write_coreml(lively_model(), spec_for(), tmp_path / "m.mlpackage")
