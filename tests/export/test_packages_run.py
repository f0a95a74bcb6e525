"""Every form of package computes what PyTorch does: executed from the file by the interpreter."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge_export.each_size import at_each_size, check_each_size
from unet_edge_export.images import CheckImages
from unet_edge_export.mil import Package
from unet_edge_export.mil.lint import CHIPS, lint
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_export.to_coreml import PackageOptions, write_coreml
from unet_edge_runtime import Segmenter
from unet_edge_runtime.errors import AgreementError
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import tolerance_of

from .conftest import lively_model

pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")


def spec_for(outputs=2, channels=3, **changes):
    changes = {"input_size": (32, 48), "precision": "fp16", **changes}
    classes = class_infos(list(range(max(2, outputs))))
    return ModelSpec(channels=channels, classes=classes, outputs=outputs, multiple=4, **changes)


def pictures(channels=3, count=4, size=(32, 48)):
    torch.manual_seed(5)
    coarse = torch.rand(count, channels, 4, 6) * torch.rand(count, 1, 1, 1) + torch.rand(count, 1, 1, 1) / 2
    fine = torch.nn.functional.interpolate(coarse, size=size, mode="bilinear").clamp(0, 1)
    pixels = [np.asarray((one * 255).round().byte().permute(1, 2, 0)) for one in fine]
    return [one[:, :, 0] if channels == 1 else one for one in pixels]


def checked(tmp_path, spec, images=None, **options):
    path = tmp_path / "m.mlpackage"
    write_coreml(lively_model(spec.channels, spec.outputs), spec, path, PackageOptions(**options))
    candidate = CoreMLReferenceBackend(path)
    assert candidate.spec == spec
    images = CheckImages(images or pictures(spec.channels), "pictures")
    agreement, _ = check_each_size(lively_model(spec.channels, spec.outputs), candidate, images, tolerance_of(spec))
    assert agreement.images == len(images.images) * max(1, len(spec.input_sizes))
    assert agreement.dice > 0.99
    return candidate


@pytest.mark.parametrize(
    "spec",
    [
        spec_for(),
        spec_for(precision="fp32"),
        spec_for(channels=1, outputs=1, head="probabilities", output_name="probabilities"),
        spec_for(outputs=3, head="classmap", output_name="semanticPredictions"),
        spec_for(outputs=1, head="classmap", output_name="semanticPredictions", threshold=0.3),
        spec_for(outputs=2, head="classmap", output_name="mask", label_values=(0, 255)),
        spec_for(outputs=4, head="classmap", output_name="mask", label_values=(0, 200, 90, 7)),
        spec_for(mean=(0.5, 0.4, 0.3), std=(0.2, 0.3, 0.2)),
    ],
    ids=[
        "defaults",
        "fp32",
        "probabilities",
        "class map",
        "binary class map",
        "mask image",
        "uneven mask image",
        "array input",
    ],
)
def test_it_agrees_with_pytorch(tmp_path, spec):
    candidate = checked(tmp_path, spec)
    if spec.precision == "fp16":
        check_clean(candidate.path)


def check_clean(package):
    """No Neural Engine from the M1 on has anything against it."""
    for chip in CHIPS:
        report = lint(Package.open(package), chip)
        assert [str(each) for each in report.findings if each.severity != "info"] == []


def test_mixed_precision(tmp_path):
    checked(tmp_path, spec_for(precision="mixed"), fp32_layers=("up2", "outc", "head"))


def test_every_function_of_a_package_with_several_sizes(tmp_path):
    sizes = ((32, 48), (64, 64))
    candidate = checked(tmp_path, spec_for(input_sizes=sizes), target="macOS15")
    assert [one.spec.input_size for one in at_each_size(candidate)] == list(sizes)
    check_clean(candidate.path)
    segmenter = Segmenter(candidate)
    for size in ((20, 30), (60, 50), (90, 70)):
        assert segmenter.segment(pictures(size=size)[0]).labels.shape == size


def test_a_function_that_disagrees_is_found(tmp_path):
    """The second function only; no image would choose it."""

    class Broken(CoreMLReferenceBackend):
        def _run(self, batch):
            return super()._run(batch) * (1 if batch.shape[2:] == (32, 48) else -1)

    path = tmp_path / "m.mlpackage"
    spec = spec_for(input_sizes=((32, 48), (64, 64)))
    write_coreml(lively_model(), spec, path, PackageOptions("macOS15"))
    with pytest.raises(AgreementError, match="does not agree with PyTorch"):
        check_each_size(lively_model(), Broken(path), CheckImages(pictures(), "pictures"), tolerance_of(spec))


def test_the_labels_of_a_mask_image_are_those_of_the_class_map(tmp_path):
    plain = spec_for(outputs=3, head="classmap", output_name="semanticPredictions")
    (tmp_path / "a").mkdir()
    (tmp_path / "b").mkdir()
    maps = checked(tmp_path / "a", plain)
    masks = checked(tmp_path / "b", plain.replace(output_name="mask", label_values=(9, 99, 250)))
    seen = set()
    for image in pictures():
        expected = Segmenter(maps).segment(image).labels
        assert np.array_equal(Segmenter(masks).segment(image).labels, expected)
        seen |= set(expected.ravel().tolist())
    assert len(seen) > 1
