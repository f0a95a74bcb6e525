"""Compressed packages: what is stored, what survives, and what is measured for it; executed by the interpreter."""

from __future__ import annotations

import json
import math
from collections import Counter

import numpy as np
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge_export.calibrate import calibration_images, measure_ranges
from unet_edge_export.compress import COMPRESSIONS, SMALLEST, compression_of
from unet_edge_export.graph import fold_batch_norm
from unet_edge_export.images import CheckImages
from unet_edge_export.mil import Package
from unet_edge_export.palettes import kmeans_palette
from unet_edge_export.parity import compare
from unet_edge_export.pruning import layer_sparsities
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_export.to_coreml import PackageOptions, write_coreml
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import FP16, LossTolerance, tolerance_of

from .conftest import lively_model

SIZE = (32, 48)

LARGE = 10  # layers of the little network with more than `SMALLEST` weights, an upsampling one among them

CONSTANTS = {
    None: {},
    "int8": {"constexpr_affine_dequantize": LARGE},
    "palette8": {"constexpr_lut_to_dense": LARGE},
    "palette6": {"constexpr_lut_to_dense": LARGE},
    "palette4": {"constexpr_lut_to_dense": LARGE},
    "int4": {"constexpr_blockwise_shift_scale": LARGE},
    "sparse50": {"constexpr_sparse_to_dense": LARGE},
    "w8a8": {"constexpr_affine_dequantize": LARGE},
}


def network():
    return lively_model(depth=3)


@pytest.fixture(scope="session")
def pictures():
    """Smooth pictures at every brightness, as the network was trained on; (32, 48, 3) uint8."""
    torch.manual_seed(3)
    coarse = torch.rand(6, 3, 4, 6) * torch.rand(6, 1, 1, 1) + torch.rand(6, 1, 1, 1) / 2
    fine = torch.nn.functional.interpolate(coarse, size=SIZE, mode="bilinear").clamp(0, 1)
    return [np.asarray((one * 255).round().byte().permute(1, 2, 0)) for one in fine]


@pytest.fixture(scope="session")
def packages(tmp_path_factory, pictures):
    """Makes a package of each compression, once."""
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    made = {}

    def make(name, **options):
        key = (name, *sorted(options))
        if key not in made:
            made[key] = tmp_path_factory.mktemp("packages") / "m.mlpackage"
            target = (COMPRESSIONS[name].target if name else None) or options.pop("target", "macOS14")
            spec = spec_for(compression=name, **options)
            write_coreml(network(), spec, made[key], PackageOptions(target, calibration=tuple(pictures)))
        return made[key]

    return make


def spec_for(compression=None, **changes):
    provenance = {"compression": {"name": compression, "text": "..."}} if compression else {}
    changes = {"input_size": SIZE, "precision": "fp16", **changes}
    classes = class_infos([0, 1])
    return ModelSpec(channels=3, classes=classes, outputs=2, multiple=8, provenance=provenance, **changes)


def operations(package):
    return Package.open(package).function().operations


@pytest.mark.parametrize("name", CONSTANTS)
def test_each_form_stores_every_large_layer_in_its_own_way(packages, name):
    found = Counter(operation.type for operation in operations(packages(name)))
    assert {kind: count for kind, count in found.items() if kind.startswith("constexpr")} == CONSTANTS[name]
    assert found["conv"] + found["conv_transpose"] == 18
    assert (found["quantize"] > 0) == (name == "w8a8")
    sizes = [sum(file.stat().st_size for file in packages(one).rglob("weight.bin")) for one in (name, None)]
    assert sizes[0] < 0.8 * sizes[1] or name is None


def test_the_layers_that_are_compressed_are_those_with_enough_weights():
    sizes = [value.numel() for name, value in fold_batch_norm(network()).named_parameters() if "weight" in name]
    assert sum(size > SMALLEST for size in sizes) == LARGE
    assert len(sizes) == 18


@pytest.mark.parametrize("name", CONSTANTS)
def test_the_masks_survive(packages, pictures, name):
    candidate = CoreMLReferenceBackend(packages(name))
    agreement, magnitude = compare(network(), candidate, CheckImages(pictures, "pictures"))
    assert tolerance_of(candidate.spec).at(magnitude).problems(agreement) == []
    assert agreement.dice > (0.97 if name else 0.999)


def test_a_compression_is_told(packages):
    package = Package.open(packages("palette6"))
    assert compression_of(package.model_spec) is COMPRESSIONS["palette6"]
    assert "palette of 64 values" in package.model.description.metadata.shortDescription
    assert compression_of(spec_for()) is None


def test_compressed_functions_share_their_weights(packages):
    options = {"input_sizes": (SIZE, (64, 64)), "target": "macOS15"}
    several, one = packages("palette4", **options), packages("palette4")
    sizes = [sum(file.stat().st_size for file in path.rglob("weight.bin")) for path in (several, one)]
    assert sizes[0] <= 1.02 * sizes[1]
    backend = CoreMLReferenceBackend(several)
    for height, width in options["input_sizes"]:
        assert backend.run(np.zeros((1, 3, height, width), np.float32)).shape == (1, 2, height, width)


def test_a_broken_compression_is_refused():
    tolerance = tolerance_of(spec_for("int8"))
    labels = np.repeat(np.arange(2, dtype=np.uint8), 50).reshape(10, 10)
    agreement = Agreement()
    agreement.add(labels[None].astype("f4"), labels[None].astype("f4") + 9, labels, labels)
    assert tolerance.problems(agreement) == [], "logits may differ"
    agreement.add(labels[None].astype("f4"), None, labels, 1 - labels)
    assert tolerance.problems(agreement) == ["Dice with PyTorch 0.5000, required 0.98"]
    assert tolerance.at(100.0) == tolerance
    broken = Agreement(math.inf, pixels=1, images=1)
    assert LossTolerance(least_dice=0.0).problems(broken) == ["NaN or infinite values"]
    assert LossTolerance(least_dice=0.1).problems(Agreement()) == ["Dice with PyTorch 0.0000, required 0.1"]


def test_mixed_precision_is_held_to_half_precision():
    assert tolerance_of(spec_for(precision="mixed")) is FP16


class TestPalettes:
    @pytest.mark.parametrize("bits", [1, 3, 4, 6, 8])
    def test_nearest_values_in_order(self, bits):
        weights = np.random.default_rng(0).standard_t(4, (16, 8, 3, 3)).astype(np.float16)
        palette, indices = kmeans_palette(weights, bits)
        assert palette.shape == (1 << bits,)
        assert palette.dtype == np.float16
        assert np.all(np.diff(palette) >= 0)
        assert indices.shape == (weights.size,)
        assert indices.dtype == np.uint8
        distance = np.abs(weights.astype("f8").ravel()[:, None] - palette.astype("f8"))
        chosen = np.take_along_axis(distance, indices[:, None].astype(int), 1)[:, 0]
        np.testing.assert_allclose(chosen, distance.min(axis=1), atol=1e-12)

    def test_close_to_the_optimum(self):
        """Against coremltools' exact one-dimensional k-means."""
        exact = pytest.importorskip("coremltools._deps.kmeans1d", reason="not in this build of coremltools")
        weights = np.random.default_rng(1).laplace(size=20000).astype(np.float16)
        values = weights.astype("f8")
        for bits in (4, 6):
            palette, indices = kmeans_palette(weights, bits)
            best = np.array(exact.cluster(values, 1 << bits).centroids)
            least = (np.abs(values[:, None] - best).min(axis=1) ** 2).mean()
            even = np.linspace(values.min(), values.max(), 1 << bits)
            plain = (np.abs(values[:, None] - even).min(axis=1) ** 2).mean()
            error = ((values - palette.astype("f8")[indices]) ** 2).mean()
            assert error < 1.2 * least
            assert plain > 3 * least

    def test_fewer_values_than_entries_are_kept_exactly(self):
        weights = np.tile(np.array([-1.5, 0.25, 3.0], np.float16), 200)
        palette, indices = kmeans_palette(weights, 4)
        assert np.array_equal(palette[indices], weights)
        palette, indices = kmeans_palette(np.full(600, 0.5, np.float16), 6)
        assert np.all(palette[indices] == 0.5)


class TestPruning:
    def test_half_of_all_and_more_of_the_large_layers(self):
        generator = np.random.default_rng(0)
        weights = {"small": generator.normal(size=600), "large": generator.normal(size=60000)}
        shares = layer_sparsities(weights, 0.5)
        pruned = sum(shares[name] * weights[name].size for name in weights)
        assert pruned == pytest.approx(0.5 * 60600, rel=0.01)
        assert shares["small"] < 0.2 < 0.5 < shares["large"]

    def test_no_layer_is_emptied(self):
        weights = {"tiny": np.full(700, 1e-6), "huge": np.full(700, 1e3)}
        assert max(layer_sparsities(weights, 0.9).values()) < 1
        assert layer_sparsities({}, 0.5) == {}
        assert layer_sparsities({"zero": np.zeros(600)}, 0.5)["zero"] <= 1


class TestCalibration:
    def test_ranges_are_the_extremes_over_all_images(self, packages, pictures):
        """coremltools 9.0 keeps those of the last image."""
        package = packages(None, precision="fp32")
        spec = Package.open(package).model_spec
        ranges, first = measure_ranges(package, spec, pictures)
        model = fold_batch_norm(network())
        batch = torch.stack([torch.from_numpy(one.copy()) for one in pictures]).permute(0, 3, 1, 2) / 255
        seen = {}
        model.down1.maxpool_conv[0].register_forward_hook(lambda module, inputs, output: seen.update(pooled=output))
        with torch.no_grad():
            model(batch)
        assert first == "conv2d"
        assert ranges["image"] == {"rmin": min(p.min() for p in pictures), "rmax": max(p.max() for p in pictures)}
        assert ranges["max_pool2d"]["rmax"] == pytest.approx(float(seen["pooled"].max()), rel=1e-4)
        assert ranges["max_pool2d"]["rmin"] == pytest.approx(float(seen["pooled"].min()), abs=1e-4)
        alone = [measure_ranges(package, spec, [one])[0]["max_pool2d"]["rmax"] for one in pictures]
        assert max(alone) == ranges["max_pool2d"]["rmax"] > alone[-1]
        assert "logits" not in ranges

    def test_values_that_are_joined_share_a_range(self, packages, pictures):
        package = packages(None)
        ranges, _ = measure_ranges(package, Package.open(package).model_spec, pictures)
        joins = [each for each in operations(package) if each.type == "concat"]
        assert len(joins) == 3
        for join in joins:
            shared = [ranges[name] for name in (*join.inputs["values"], join.name)]
            assert all(each == shared[0] for each in shared)

    def test_the_first_convolution_takes_the_picture_as_it_is(self, packages):
        found = operations(packages("w8a8"))
        first = next(index for index, each in enumerate(found) if each.type == "conv")
        assert not any(each.type == "quantize" for each in found[:first])

    def test_coremltools_is_left_as_it_was(self, packages):
        quantization = pytest.importorskip("coremltools.optimize.coreml._post_training_quantization")
        packages("w8a8")
        assert quantization._get_activation_calibration_stats.__module__.startswith("coremltools")

    def test_which_images(self, tmp_path, photos):
        spec, checkpoint = spec_for(), tmp_path / "best.pth"
        assert calibration_images(checkpoint, spec, photos).origin == "2 given images"
        entries = [{"image": str(path)} for path in photos] + [{"image": "gone.png"}]
        (tmp_path / "split.json").write_text(json.dumps({"train": entries, "val": []}))
        chosen = calibration_images(checkpoint, spec)
        assert chosen.origin == "2 training images of the run"
        assert chosen.images == photos
        (tmp_path / "split.json").write_text("{")
        assert calibration_images(checkpoint, spec).images, "something is always there"
