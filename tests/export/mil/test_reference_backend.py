"""The backend `coreml-ref`: the contract of every backend, real packages, several functions, real photographs."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pytest

from tests.contract.test_every_backend import (  # noqa: F401
    test_any_image_gets_a_mask_of_its_size,
    test_images_of_a_batch_do_not_touch,
    test_it_says_what_it_is,
    test_labels_of_a_photo_are_pytorchs,
    test_logits_are_pytorchs,
    test_other_sizes,
    test_what_does_not_fit_is_refused_before_it_runs,
)
from unet_edge.checkpoint import load_model, save_checkpoint
from unet_edge_export.mil.schema import Model
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_runtime import Segmenter
from unet_edge_runtime.errors import BackendError, ModelFileError
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec, function_name

from .building import Program, write_package

SIZE = (32, 48)
PROGRAM = Path("Data") / "com.apple.CoreML" / "model.mlmodel"


class Case:
    """As the contract's cases, without the entry point."""

    backend, size = "coreml-ref", SIZE

    def __init__(self, path, foreign):
        self.path, self.foreign = path, foreign

    def open(self, path=None):
        return CoreMLReferenceBackend(path or self.path)


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory, make_model, make_spec):
    path = tmp_path_factory.mktemp("reference") / "net.pth"
    save_checkpoint(path, make_model(seed=3), make_spec(), {})
    return path


@pytest.fixture(scope="module")
def packages(ct, checkpoint):
    """fp32 packages of the checkpoint: one takes a picture, one an array."""
    from unet_edge_export.to_coreml import write_coreml

    model, spec = load_model(checkpoint)
    made = {}
    for kind, bits in (("image", 8), ("array", 16)):
        path = checkpoint.with_name(f"{kind}.mlpackage")
        write_coreml(model, spec.replace(input_size=SIZE, precision="fp32", bits=bits), path)
        made[kind] = path
    return made


def rewritten(path, target, change):
    """A copy of a package whose description or program `change` has altered."""
    shutil.copytree(path, target)
    model = Model.FromString((target / PROGRAM).read_bytes())
    change(model)
    (target / PROGRAM).write_bytes(model.SerializeToString())
    return target


def without_spec(model):
    del model.description.metadata.userDefined[METADATA_KEY]


@pytest.fixture(params=["image", "array"])
def case(request, packages, tmp_path):
    path = packages[request.param]
    return Case(path, rewritten(path, tmp_path / "foreign.mlpackage", without_spec))


def test_a_package_of_another_origin_is_refused(case):
    with pytest.raises(ModelFileError, match=r"foreign.mlpackage: carries no unet_edge.spec; only .*unet-edge export"):
        case.open(case.foreign)


@pytest.mark.parametrize("spoil", ["missing", "empty", "garbage", "truncated"])
def test_a_bad_file_is_named(case, tmp_path, spoil):
    path = tmp_path / "bad.mlpackage"
    if spoil != "missing":
        shutil.copytree(case.path, path)
        whole = (path / PROGRAM).read_bytes()
        content = {"empty": b"", "garbage": b"garbage" * 99, "truncated": whole[: len(whole) // 2]}[spoil]
        (path / PROGRAM).write_bytes(content)
    with pytest.raises(ModelFileError) as caught:
        case.open(path)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_it_says_what_it_proves():
    assert CoreMLReferenceBackend.proves == "proves the file, not the device's arithmetic"
    assert "device's arithmetic" in CoreMLReferenceBackend.__doc__


def test_options(packages):
    with pytest.raises(BackendError, match="precision must be one of stored, ideal, not 'int8'"):
        CoreMLReferenceBackend(packages["image"], precision="int8")
    with pytest.raises(ModelFileError, match="has no function 'other': its functions are 'main'"):
        CoreMLReferenceBackend(packages["image"], function="other")
    ideal = CoreMLReferenceBackend(packages["image"], precision="ideal", function="main", threads=1)
    batch = np.random.default_rng(0).integers(0, 256, (1, 3, *SIZE)).astype(np.float32) / 255
    stored = CoreMLReferenceBackend(packages["image"]).run(batch)
    np.testing.assert_allclose(ideal.run(batch), stored, atol=1e-5)


class TestConsistency:
    def refuse(self, packages, tmp_path, change, message, kind="image"):
        path = rewritten(packages[kind], tmp_path / "odd.mlpackage", change)
        with pytest.raises(ModelFileError, match=message) as caught:
            CoreMLReferenceBackend(path)
        assert "export it again" in str(caught.value)

    def change_spec(self, **changes):
        def change(model):
            stored = model.description.metadata.userDefined
            stored[METADATA_KEY] = ModelSpec.from_json(stored[METADATA_KEY]).replace(**changes).to_json()

        return change

    def test_names(self, packages, tmp_path):
        change = self.change_spec(input_name="picture")
        self.refuse(packages, tmp_path, change, r"has inputs \['image'\] and .* its spec says picture and logits")

    def test_channels(self, packages, tmp_path):
        self.refuse(packages, tmp_path, self.change_spec(channels=1), "takes RGB, its spec says 1 channels")

    def test_channels_of_an_array(self, packages, tmp_path):
        change = self.change_spec(channels=1)
        self.refuse(packages, tmp_path, change, r"takes array \(1, 3, 32, 48\), its spec says 1 channels", "array")

    def test_size(self, packages, tmp_path):
        change = self.change_spec(input_size=(32, 64))
        self.refuse(packages, tmp_path, change, r"takes images of \[\(32, 48\)\], its spec says \(32, 64\)")

    def test_a_damaged_spec(self, packages, tmp_path):
        def change(model):
            model.description.metadata.userDefined[METADATA_KEY] = "{"

        self.refuse(packages, tmp_path, change, "carries a damaged spec")


def doubling(model, name, size, classes=2):
    """A function that returns twice the first channels of an array."""
    program = Program(model, name)
    x = program.input("image", (1, 3, *size))
    begin, part = np.zeros(4, np.int32), np.array([1, classes, *size], np.int32)
    x = program.op("slice_by_size", (1, classes, *size), x=x, begin=begin, size=part)
    program.op("mul", (1, classes, *size), x=x, y=np.float32(2))
    program.block.operations[-1].outputs[0].name = "logits"
    program.output("logits")
    entry = model.description.functions.add(name=name)
    entry.input.extend(model.description.input)
    entry.output.extend(model.description.output)
    del model.description.input[:], model.description.output[:]


class TestSeveralFunctions:
    SIZES = ((8, 12), (16, 8))

    @pytest.fixture
    def package(self, tmp_path, make_spec):
        model = Model(specificationVersion=9)
        for size in self.SIZES:
            doubling(model, function_name(size), size)
        model.description.defaultFunctionName = function_name(self.SIZES[1])
        spec = make_spec(input_size=self.SIZES[1], input_sizes=self.SIZES)
        model.description.metadata.userDefined[METADATA_KEY] = spec.to_json()
        return write_package(tmp_path / "several.mlpackage", model)

    def test_the_size_chooses(self, package):
        backend = CoreMLReferenceBackend(package)
        assert backend.spec.input_sizes == self.SIZES
        for size in self.SIZES:
            batch = np.random.default_rng(0).random((2, 3, *size), np.float32)
            np.testing.assert_array_equal(backend.run(batch), 2 * batch[:, :2])
        with pytest.raises(ValueError, match=r"takes images of \(8, 12\) or \(16, 8\) only, got \(8, 8\)"):
            backend.run(np.zeros((1, 3, 8, 8), np.float32))

    def test_a_name_chooses(self, package):
        backend = CoreMLReferenceBackend(package, function=function_name(self.SIZES[0]))
        assert backend.spec.input_size == self.SIZES[0]
        assert backend.spec.input_sizes == ()
        with pytest.raises(ValueError, match=r"takes images of \(8, 12\) only, got \(16, 8\)"):
            backend.run(np.zeros((1, 3, *self.SIZES[1]), np.float32))

    def test_any_image_is_segmented(self, package):
        segmenter = Segmenter(CoreMLReferenceBackend(package))
        for size in [(5, 9), (16, 8), (30, 40)]:
            image = np.random.default_rng(1).integers(0, 256, (*size, 3), np.uint8)
            assert segmenter.segment(image).labels.shape == size


def test_sizes_in_a_range(tmp_path, make_spec):
    program = Program()
    program.op("relu", (1, 3, None, None), x=program.input("image", (1, 3, None, None)))
    program.block.operations[-1].outputs[0].name = "logits"
    program.output("logits")
    array = program.description.input[0].type.multiArrayType
    array.shape[:] = [1, 3, 8, 8]
    for low, high in ((1, 1), (3, 3), (4, 64), (4, 64)):
        array.shapeRange.sizeRanges.add(lowerBound=low, upperBound=high)
    spec = make_spec((0, 1, 2))
    backend = CoreMLReferenceBackend(program.write(tmp_path / "a.mlpackage", spec))
    assert backend.spec.input_size is None
    for size in [(4, 8), (64, 4)]:
        batch = np.random.default_rng(0).random((1, 3, *size), np.float32)
        np.testing.assert_array_equal(backend.run(batch), batch)
    with pytest.raises(ValueError, match=r"has no function for images of \(4, 68\)"):
        backend.run(np.zeros((1, 3, 4, 68), np.float32))


@pytest.mark.parametrize("head", ["classmap", "probabilities"])
def test_heads(ct, checkpoint, tmp_path, head):
    from unet_edge_export.to_coreml import write_coreml

    model, spec = load_model(checkpoint)
    spec = spec.replace(input_size=SIZE, precision="fp32", head=head, output_name=head)
    write_coreml(model, spec, tmp_path / "a.mlpackage")
    backend = CoreMLReferenceBackend(tmp_path / "a.mlpackage")
    pixels = np.random.default_rng(0).integers(0, 256, (*SIZE, 3), np.uint8)
    expected, got = Segmenter.open(checkpoint).segment(pixels), Segmenter(backend).segment(pixels)
    np.testing.assert_array_equal(got.labels, expected.labels)
    if head == "probabilities":
        np.testing.assert_allclose(got.probabilities, expected.probabilities, atol=1e-5)


def test_half_precision_on_real_images(ct, real_data, tmp_path, make_model, make_spec):
    """Camera images through the default package: labels equal on 99.9 % at least."""
    from unet_edge_export.to_coreml import write_coreml
    from unet_edge_runtime.image import read_image

    files = sorted((real_data / "camvid" / "val" / "images").glob("*.jpg"))[:3]
    if not files:
        pytest.skip("CamVid is not on this machine")
    model, size = make_model(seed=3), (96, 128)
    save_checkpoint(tmp_path / "net.pth", model, make_spec(), {})
    write_coreml(model, make_spec(input_size=size, precision="fp16"), tmp_path / "a.mlpackage")
    agreement = Agreement()
    torchs = Segmenter.open(tmp_path / "net.pth")
    ours = Segmenter(CoreMLReferenceBackend(tmp_path / "a.mlpackage"))
    for file in files:
        pixels = read_image(file)[: size[0], : size[1]]
        left, right = torchs.segment(pixels), ours.segment(pixels)
        agreement.add(left.output, right.output, left.labels, right.labels)
    assert agreement.equal_labels > 0.999
    assert 1e-6 < agreement.max_difference < 0.05
