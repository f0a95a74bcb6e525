"""`export_model`: sizes, defaults, images, and that a failed export leaves everything as it was."""

from __future__ import annotations

import copy
import json
import re
import sys

import numpy as np
import pytest
import torch
from PIL import Image

import unet_edge_export.exporter as exporter
import unet_edge_export.images as images_module
from unet_edge.checkpoint import load_model
from unet_edge.torch_backend import TorchBackend
from unet_edge_export import export_model, export_sibling
from unet_edge_runtime import Segmenter
from unet_edge_runtime.errors import AgreementError, InputError, ModelFileError
from unet_edge_runtime.files import sha256_of
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .conftest import SHARED, lively_model


@pytest.mark.parametrize("up", ["transposed", "bilinear"])
@pytest.mark.parametrize(
    ("channels", "outputs", "head"),
    [(3, 2, "logits"), (1, 1, "logits"), (3, 4, "probabilities"), (1, 1, "probabilities"), (3, 2, "classmap")],
)
def test_onnx_agrees_with_torch(make_checkpoint, photos, up, channels, outputs, head):
    checkpoint = make_checkpoint(channels, outputs, up=up, scale=0.5, threshold=0.4)
    result = export_model(checkpoint, head=head, images=photos, dynamic=head != "classmap")
    assert result.path == checkpoint.with_suffix(".onnx")
    assert result.size == result.path.stat().st_size
    assert result.agreement.equal_labels >= 0.99999
    assert result.agreement.max_difference <= 1e-4
    assert result.agreement.images == len(photos) + (head != "classmap")
    assert result.spec.head == result.spec.output_name == head


def test_predictions_are_equal_through_torch_and_onnx(make_checkpoint, photos):
    checkpoint = make_checkpoint(scale=0.5)
    path = export_model(checkpoint, images=photos, dynamic=True).path
    for photo in photos:
        expected = Segmenter.open(checkpoint, device="cpu").segment(photo).labels
        got = Segmenter.open(path).segment(photo).labels
        assert expected.shape == got.shape
        assert (expected != got).mean() <= 1e-5
        assert 0.01 < expected.mean() < 0.99


def test_provenance(make_checkpoint, photos):
    checkpoint = make_checkpoint(provenance={"scores": {"dice": 0.5}})
    made = export_model(checkpoint, images=photos).spec.provenance
    assert made["checkpoint"] == "best.pth"
    assert made["checkpoint_sha256"] == sha256_of(checkpoint)
    assert made["format"] == "ONNX opset 18"
    assert {"unet-edge", "torch", "onnx"} <= set(made["exported_with"])
    assert made["scores"] == {"dice": 0.5}, "what training wrote stays"


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_core_ml_off_macos_is_checked_with_the_reference_interpreter(make_checkpoint, photos, monkeypatch, precision):
    ct = pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    monkeypatch.setattr(sys, "platform", "linux")
    checkpoint = make_checkpoint()
    result = export_model(checkpoint, "coreml", images=photos, precision=precision)
    assert result.path == checkpoint.with_suffix(".mlpackage")
    assert result.images == "2 given images"
    assert result.proof == "checked with the reference interpreter: it proves the file, not the device's arithmetic"
    assert result.to_dict()["proof"] == result.proof
    assert 0 < result.agreement.max_difference < (0.05 if precision == "fp16" else 1e-4)
    assert result.agreement.images == 2
    assert result.size > 1000
    assert result.spec.precision == precision
    text = ct.models.MLModel(str(result.path), skip_model_load=True).user_defined_metadata[METADATA_KEY]
    assert ModelSpec.from_json(text) == result.spec
    before = result.path.stat().st_ino
    assert export_model(checkpoint, "coreml", images=photos).path.stat().st_ino != before, "replaces the package"
    assert [path.name for path in checkpoint.parent.iterdir() if path.name.startswith(".")] == []


def test_a_package_that_computes_something_else_is_not_kept(make_checkpoint, photos, monkeypatch):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    monkeypatch.setattr(sys, "platform", "linux")
    checkpoint = make_checkpoint()
    real = exporter.write_coreml

    def wrong(model, *args):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.outc.conv.bias[0] += 1
        real(other, *args)

    monkeypatch.setattr(exporter, "write_coreml", wrong)
    with pytest.raises(
        AgreementError, match="coreml-ref artefact does not agree with PyTorch on 2 given images: largest"
    ):
        export_model(checkpoint, "coreml", images=photos)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.pth"]


@pytest.mark.parametrize(("noise", "fails"), [(0.01, False), (5.0, True)])
def test_core_ml_on_macos_is_executed_and_compared(make_checkpoint, photos, monkeypatch, noise, fails):
    """Core ML itself is replaced by PyTorch with noise; everything around it is real."""
    ct = pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    checkpoint = make_checkpoint()
    model, _ = load_model(checkpoint)

    class FakeCoreML(TorchBackend):
        name = "coreml"

        def _run(self, batch):
            return super()._run(batch) + noise * np.random.default_rng(0).standard_normal(batch[:, :1].shape, "f4")

    def load(path, name):
        text = ct.models.MLModel(str(path), skip_model_load=True).user_defined_metadata[METADATA_KEY]
        assert name == "coreml"
        return FakeCoreML.from_model(model, ModelSpec.from_json(text))

    monkeypatch.setattr(sys, "platform", "darwin")
    monkeypatch.setattr(exporter, "write_coreml", _write_as_on_linux(monkeypatch))
    monkeypatch.setattr(exporter, "load_backend", load)
    if fails:
        with pytest.raises(AgreementError, match="coreml artefact does not agree"):
            export_model(checkpoint, "coreml", images=photos)
        assert sorted(path.name for path in checkpoint.parent.iterdir()) == ["best.pth"]
    else:
        result = export_model(checkpoint, "coreml", images=photos)
        assert 0 < result.agreement.max_difference < 0.1


def _write_as_on_linux(monkeypatch):
    real = exporter.write_coreml

    def write(*args, **kwargs):
        with monkeypatch.context() as patch:
            patch.setattr(sys, "platform", "linux")
            real(*args, **kwargs)

    return write


def plant_a_mistake(monkeypatch, change=0.01):
    real = exporter.write_onnx

    def wrong(model, spec, path):
        other = copy.deepcopy(model)
        with torch.no_grad():
            other.inc.double_conv[0].weight[0] += change
        real(other, spec, path)

    monkeypatch.setattr(exporter, "write_onnx", wrong)


def test_a_planted_mismatch_fails_and_leaves_nothing(make_checkpoint, photos, monkeypatch):
    checkpoint = make_checkpoint()
    plant_a_mistake(monkeypatch)
    with pytest.raises(AgreementError, match="onnx artefact does not agree with PyTorch on 2 given images: largest"):
        export_model(checkpoint, images=photos)
    assert [path.name for path in checkpoint.parent.iterdir()] == ["best.pth"]


def test_a_failed_export_keeps_the_older_artefact(make_checkpoint, photos, monkeypatch):
    checkpoint = make_checkpoint()
    path = export_model(checkpoint, images=photos).path
    before = path.read_bytes()
    plant_a_mistake(monkeypatch)
    with pytest.raises(AgreementError):
        export_model(checkpoint, images=photos)
    assert path.read_bytes() == before
    assert sorted(each.name for each in path.parent.iterdir()) == ["best.onnx", "best.pth"]


class TestSizes:
    def test_one_training_size_is_fixed_rounded_up(self, make_checkpoint, photos):
        checkpoint = make_checkpoint(training_sizes=((63, 94),))
        assert export_model(checkpoint, images=photos).spec.input_size == (64, 96)

    def test_several_training_sizes_are_dynamic_in_onnx(self, make_checkpoint, photos):
        result = export_model(make_checkpoint(training_sizes=((64, 96), (32, 32))), images=photos)
        assert result.spec.input_size is None
        assert "trained at 2 sizes" in result.note

    def test_and_the_most_frequent_in_core_ml(self, make_checkpoint, monkeypatch):
        pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
        monkeypatch.setattr(sys, "platform", "linux")
        result = export_model(make_checkpoint(training_sizes=((64, 96), (32, 32))), "coreml")
        assert result.spec.input_size == (64, 96)
        assert "most frequent of 2" in result.note

    def test_a_milesial_checkpoint_is_dynamic_and_core_ml_asks_for_a_size(self, tmp_path, photos):
        path = tmp_path / "milesial.pth"
        torch.save({**lively_model().state_dict(), "mask_values": [0, 1]}, path)
        result = export_model(path, images=photos)
        assert result.spec.input_size is None
        assert result.spec.scale == 0.5
        assert "does not say its training size" in result.note
        with pytest.raises(InputError, match=r"add --size HxW in multiples of 4, such as --size 80x120"):
            export_model(path, "coreml")
        assert export_model(path, images=photos, size=(64, 64), scale=0.25).spec.scale == 0.25

    def test_a_wrong_size_names_the_nearest(self, make_checkpoint):
        with pytest.raises(InputError, match=r"--size 65x94: .* multiples of 4 .* the nearest is 64x96"):
            export_model(make_checkpoint(), size=(65, 94))

    @pytest.mark.parametrize(
        ("format", "options", "message"),
        [
            ("coreml", {"dynamic": True}, "replace --dynamic with --size"),
            ("onnx", {"dynamic": True, "size": (64, 64)}, "exclude each other"),
            ("onnx", {"precision": "fp16"}, "onnx is exported in fp32, not fp16"),
            ("tflite", {}, "format must be one of onnx, coreml"),
            ("onnx", {"head": "mask"}, "head must be one of"),
            ("coreml", {"target": "iOS3"}, "target must be one of macOS13"),
        ],
    )
    def test_options_that_do_not_fit(self, make_checkpoint, format, options, message):
        with pytest.raises(InputError, match=message):
            export_model(make_checkpoint(), format, **options)


class TestOutput:
    def test_a_wrong_suffix(self, make_checkpoint, tmp_path):
        with pytest.raises(InputError, match=r"onnx artefacts end in \.onnx"):
            export_model(make_checkpoint(), "onnx", tmp_path / "model.bin")

    @pytest.mark.parametrize(("format", "suffix"), [("onnx", ".onnx"), ("coreml", ".mlpackage")])
    def test_a_folder_that_is_no_artefact_is_never_replaced(self, make_checkpoint, tmp_path, format, suffix):
        folder = tmp_path / f"mine{suffix}"
        folder.mkdir()
        (folder / "diary.txt").write_text("dear diary")
        with pytest.raises(InputError, match=r"is no .* artefact: move it away"):
            export_model(make_checkpoint(), format, folder)
        assert (folder / "diary.txt").read_text() == "dear diary"

    def test_a_file_in_the_place_of_a_package(self, make_checkpoint, tmp_path):
        (tmp_path / "m.mlpackage").write_text("x")
        with pytest.raises(InputError, match="is no coreml artefact"):
            export_model(make_checkpoint(), "coreml", tmp_path / "m.mlpackage")


class TestImages:
    def test_validation_images_of_the_run(self, make_checkpoint, photos, tmp_path):
        checkpoint = make_checkpoint()
        entries = [{"name": path.stem, "image": str(path), "mask": "gone.png"} for path in photos]
        entries.append({"name": "moved", "image": str(tmp_path / "moved.png"), "mask": "gone.png"})
        (checkpoint.parent / "split.json").write_text(json.dumps({"train": [], "val": entries}))
        result = export_model(checkpoint)
        assert result.images == "2 validation images of the run"
        assert result.agreement.images == 2

    @pytest.mark.parametrize("content", ["{", "[]", '{"val": 3}', '{"val": [{"name": "a"}]}', '{"val": []}'])
    def test_without_them_a_real_photograph(self, make_checkpoint, content):
        pytest.importorskip("matplotlib", reason="the photograph ships with matplotlib")
        checkpoint = make_checkpoint()
        (checkpoint.parent / "split.json").write_text(content)
        chosen = images_module.choose_images(checkpoint, load_model(checkpoint)[1].replace(input_size=(64, 96)))
        assert "1 photograph that ships with matplotlib" in chosen.origin
        assert chosen.images[0].is_file()

    @pytest.mark.parametrize("channels", [1, 3, 4])
    def test_without_that_made_up_ones_the_same_each_time(self, make_checkpoint, monkeypatch, channels):
        monkeypatch.setattr(images_module.importlib.util, "find_spec", lambda name: None)
        checkpoint = make_checkpoint(channels=channels)
        first, second = (export_model(checkpoint, dynamic=True) for _ in range(2))
        assert "3 made-up images" in first.images
        assert "another size" in first.images
        assert first.agreement == second.agreement
        assert first.agreement.images == 4

    def test_an_unreadable_given_image_is_named(self, make_checkpoint, tmp_path):
        (tmp_path / "bad.png").write_text("no image")
        checkpoint = make_checkpoint()
        with pytest.raises(InputError, match=re.escape(str(tmp_path / "bad.png"))):
            export_model(checkpoint, images=[tmp_path / "bad.png"])
        assert not checkpoint.with_suffix(".onnx").exists()

    @pytest.mark.skipif(not SHARED.is_dir(), reason="the shared data sets are not on this machine")
    def test_one_image_of_every_real_set(self, make_checkpoint):
        files = [
            sorted(SHARED.glob(pattern))[0] for pattern in ("carvana/images/*", "dsb2018/images/*", "isbi2012/images/*")
        ]
        agreement = export_model(make_checkpoint(scale=0.5), dynamic=True, images=files).agreement
        assert agreement.equal_labels >= 0.99999
        assert agreement.max_difference <= 1e-4

    def test_a_class_map_graph_gets_the_part_that_fits(self, make_checkpoint, tmp_path):
        Image.fromarray(np.random.default_rng(0).integers(0, 256, (300, 400, 3), np.uint8)).save(tmp_path / "big.png")
        result = export_model(make_checkpoint(scale=0.5), head="classmap", images=[tmp_path / "big.png"])
        assert result.agreement.pixels == 128 * 192


class TestSibling:
    def test_is_made_once_and_again_when_the_checkpoint_changes(self, make_checkpoint):
        checkpoint = make_checkpoint()
        assert export_sibling(checkpoint) == (checkpoint.with_suffix(".onnx"), True)
        assert export_sibling(checkpoint) == (checkpoint.with_suffix(".onnx"), False)
        make_checkpoint(up="bilinear")
        path, exported = export_sibling(checkpoint)
        assert exported
        assert Segmenter.open(path).spec.provenance["checkpoint_sha256"] == sha256_of(checkpoint)

    def test_is_made_again_for_another_scale(self, tmp_path):
        path = tmp_path / "milesial.pth"
        torch.save(lively_model().state_dict(), path)
        assert export_sibling(path, scale=1.0)[1]
        assert not export_sibling(path, scale=1.0)[1]
        assert export_sibling(path)[1]
        assert Segmenter.open(path.with_suffix(".onnx")).spec.scale == 0.5

    def test_a_foreign_file_of_that_name_is_not_overwritten(self, make_checkpoint):
        checkpoint = make_checkpoint()
        foreign = checkpoint.with_suffix(".onnx")
        foreign.write_bytes(b"someone else's")
        with pytest.raises(ModelFileError, match="move it away"):
            export_sibling(checkpoint)
        assert foreign.read_bytes() == b"someone else's"


def test_a_foreign_checkpoint_is_one_line(tmp_path):
    path = tmp_path / "foreign.pth"
    torch.save({"layer.weight": torch.zeros(3)}, path)
    with pytest.raises(ModelFileError, match="is not a checkpoint of this U-Net") as caught:
        export_model(path)
    assert "\n" not in str(caught.value)
    assert not path.with_suffix(".onnx").exists()
