"""Core ML packages, read back from their files; executing them needs a Mac."""

from __future__ import annotations

import json
import logging
import sys
import warnings

import numpy as np
import pytest

from unet_edge.checkpoint import class_infos
from unet_edge_export.graph import fold_batch_norm, fold_pixel_scale
from unet_edge_export.to_coreml import PackageOptions, describe_package, takes_image, write_coreml
from unet_edge_runtime.errors import MissingExtraError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .conftest import lively_model

PLAIN_OPS = {"const", "cast", "conv", "conv_transpose", "relu", "max_pool", "concat", "upsample_bilinear"}
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
    write_coreml(lively_model(spec.channels, spec.outputs, up=up), spec, path, PackageOptions(**options))
    return ct.models.MLModel(str(path), skip_model_load=True).get_spec()


def constants(ct, path):
    """Name -> value of every constant, decoded by coremltools' own reader."""
    from coremltools.converters.mil.frontend.milproto.load import load

    package = ct.models.MLModel(str(path), skip_model_load=True)
    version = package.get_spec().specificationVersion
    program = load(package.get_spec(), specification_version=version, file_weights_dir=package.weights_dir)
    return {op.name: op.val.val for op in program.functions["main"].operations if op.op_type == "const"}


def operations(description, name="main"):
    function = description.mlProgram.functions[name]
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
    assert [op.type for op in ops if op.type != "const"][:2] == ["cast", "conv"], "no scale on the way in"
    assert sum(op.type == "cast" for op in ops) == 1
    names = sorted(each.relative_to(tmp_path).as_posix() for each in tmp_path.rglob("*") if each.is_file())
    program = "m.mlpackage/Data/com.apple.CoreML"
    assert names == [f"{program}/model.mlmodel", f"{program}/weights/weight.bin", "m.mlpackage/Manifest.json"]


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


def test_what_a_user_says_about_it(ct, tmp_path):
    told = {"author": "A. Turing", "license": "CC0", "description": "cars", "model_version": "1.2"}
    metadata = convert(ct, tmp_path / "m.mlpackage", spec_for(provenance=told)).description.metadata
    said = (metadata.author, metadata.license, metadata.shortDescription, metadata.versionString)
    assert said == ("A. Turing", "CC0", "cars", "1.2")


@pytest.mark.parametrize(("target", "version"), [("macOS13", 7), ("macOS15", 9), ("macOS26", 10)])
def test_targets(ct, tmp_path, target, version):
    assert convert(ct, tmp_path / "m.mlpackage", spec_for(), target=target).specificationVersion == version


@pytest.mark.parametrize(("outputs", "op"), [(1, "sigmoid"), (3, "softmax")])
def test_probabilities(ct, tmp_path, outputs, op):
    made = convert(
        ct, tmp_path / "m.mlpackage", spec_for(outputs=outputs, head="probabilities", output_name="probabilities")
    )
    (output,) = made.description.output
    assert output.name == "probabilities"
    assert output.type.multiArrayType.dataType == FLOAT16
    assert list(output.type.multiArrayType.shape) == [1, outputs, 32, 48]
    assert op in {each.type for each in operations(made)}


@pytest.mark.parametrize("outputs", [1, 3])
def test_a_class_map_is_what_the_sample_of_apple_reads(ct, tmp_path, outputs):
    spec = spec_for(outputs=outputs, head="classmap", output_name="semanticPredictions")
    made = convert(ct, tmp_path / "m.mlpackage", spec)
    (output,) = made.description.output
    assert output.name == "semanticPredictions"
    assert output.type.multiArrayType.dataType == INT32
    assert list(output.type.multiArrayType.shape) == [32, 48]
    assert [op.type for op in operations(made) if op.type != "const"][-3:] == ["conv", "reduce_argmax", "squeeze"]
    metadata = made.description.metadata.userDefined
    assert metadata["com.apple.coreml.model.preview.type"] == "imageSegmenter"
    assert json.loads(metadata["com.apple.coreml.model.preview.params"])["labels"] == spec.class_names


@pytest.mark.parametrize(
    ("outputs", "values", "ops"),
    [
        (1, (0, 255), ["greater", "cast", "mul", "cast"]),
        (2, (10, 200), ["reduce_argmax", "cast", "mul", "add", "cast"]),
        (3, (0, 1, 2), ["reduce_argmax", "cast"]),
        (3, (0, 200, 90), ["reduce_argmax", "greater_equal", "cast", "conv", "cast"]),
    ],
)
def test_a_mask_image(ct, tmp_path, outputs, values, ops):
    spec = spec_for(outputs=outputs, head="classmap", output_name="mask", label_values=values)
    made = convert(ct, tmp_path / "m.mlpackage", spec)
    (output,) = made.description.output
    assert output.type.imageType.colorSpace == GRAYSCALE
    assert (output.type.imageType.height, output.type.imageType.width) == (32, 48)
    assert [op.type for op in operations(made) if op.type != "const"][-len(ops) :] == ops
    assert f"{values[1]} {spec.class_names[1]}" in output.shortDescription
    assert "com.apple.coreml.model.preview.type" not in made.description.metadata.userDefined


def test_named_layers_stay_in_fp32(ct, tmp_path):
    spec = spec_for(precision="mixed")
    made = convert(ct, tmp_path / "m.mlpackage", spec, fp32_layers=("up2.conv", "outc"))
    types = {op.outputs[0].name: op.outputs[0].type.tensorType.dataType for op in operations(made)}
    wide = {name.removeprefix("p_net_") for name, kind in types.items() if kind == 11 and name.endswith("weight")}
    assert wide == {"up2_conv_double_conv_0_weight", "up2_conv_double_conv_2_weight", "outc_conv_weight"}
    assert sum(op.type == "conv_transpose" and types[op.outputs[0].name] == 10 for op in operations(made)) == 2
    assert made.description.output[0].type.multiArrayType.dataType == FLOAT32


def test_the_ends_in_fp32_change_the_interface(ct, tmp_path):
    spec = spec_for(precision="mixed", channels=4)
    first = convert(ct, tmp_path / "a.mlpackage", spec, fp32_layers=("inc",)).description
    last = convert(ct, tmp_path / "b.mlpackage", spec, fp32_layers=("outc.conv",)).description
    assert [one.input[0].type.multiArrayType.dataType for one in (first, last)] == [FLOAT32, FLOAT16]
    assert [one.output[0].type.multiArrayType.dataType for one in (first, last)] == [FLOAT16, FLOAT32]


def test_several_sizes_share_their_weights(ct, tmp_path):
    sizes = ((32, 48), (64, 64), (48, 32))
    spec = spec_for(input_sizes=sizes, provenance={"license": "CC0"})
    one = tmp_path / "one.mlpackage"
    convert(ct, one, spec_for(), target="macOS15")
    made = convert(ct, tmp_path / "m.mlpackage", spec, target="macOS15")
    description = made.description
    assert made.specificationVersion == 9
    assert description.defaultFunctionName == "size_32x48"
    found = {each.name: each.input[0].type.imageType for each in description.functions}
    assert {name: (kind.height, kind.width) for name, kind in found.items()} == {
        "size_32x48": (32, 48),
        "size_64x64": (64, 64),
        "size_48x32": (48, 32),
    }
    assert "48x32 (height x width)" in description.functions[-1].input[0].shortDescription
    assert ModelSpec.from_json(description.metadata.userDefined[METADATA_KEY]) == spec
    assert description.metadata.license == "CC0"
    weights = [weight_bytes(path) for path in (one, tmp_path / "m.mlpackage")]
    assert weights[0] == weights[1]
    facts = describe_package(tmp_path / "m.mlpackage")
    assert facts["functions"]["size_64x64"] == {"image": ["RGB picture", 64, 64], "logits": ["FLOAT16", 1, 2, 64, 64]}
    assert facts["interface"] == facts["functions"]["size_32x48"]


def weight_bytes(package):
    return sum(path.stat().st_size for path in package.rglob("weight.bin"))


def test_the_converter_keeps_silent(ct, tmp_path, capfd):
    write_coreml(lively_model(), spec_for(), tmp_path / "m.mlpackage")
    assert capfd.readouterr() == ("", "")
    assert logging.root.manager.disable == logging.NOTSET


def test_the_weights_are_those_of_the_checkpoint(ct, tmp_path):
    """The file's own constants against the folded network, whose first two convolutions take 0..255."""
    write_coreml(lively_model(), spec_for(precision="fp32"), tmp_path / "m.mlpackage")
    held = constants(ct, tmp_path / "m.mlpackage")
    folded = fold_batch_norm(lively_model())
    fold_pixel_scale(folded)
    expected = dict(folded.named_parameters())
    assert sum(name.startswith("p_net_") for name in held) == len(expected)
    for name, value in expected.items():
        assert np.array_equal(held[f"p_net_{name.replace('.', '_')}"], value.numpy())


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
