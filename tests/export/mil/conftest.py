"""Packages that coremltools made, one conversion each for the whole session."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from tests.export.conftest import lively_model
from unet_edge.checkpoint import class_infos
from unet_edge_runtime.spec import ModelSpec

from .building import Program


@pytest.fixture(scope="session")
def ct():
    """coremltools, as converter and as oracle; the code under test never imports it."""
    return pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")


@pytest.fixture(scope="session")
def converted(ct, tmp_path_factory):
    """A function (up, precision, **spec) -> (network, spec, package): a small trained U-Net, converted once."""
    from unet_edge_export.to_coreml import write_coreml

    made: dict[str, tuple[object, ModelSpec, Path]] = {}

    def convert(up="transposed", precision="fp16", **changes):
        key = f"{up}_{precision}_{sorted(changes.items())}"
        if key not in made:
            model = lively_model(up=up)
            fields = {"channels": 3, "outputs": 2, "multiple": 4, "input_size": (64, 96), "precision": precision}
            spec = ModelSpec(classes=class_infos([0, 1]), **fields | changes)
            path = tmp_path_factory.mktemp("converted") / "net.mlpackage"
            write_coreml(model, spec, path)
            made[key] = model, spec, path
        return made[key]

    return convert


@pytest.fixture
def tiny(tmp_path):
    """A package with every kind of part: picture in, weights in the file, compressed ones, two functions."""
    return tiny_program().write(tmp_path / "tiny.mlpackage")


def tiny_program():
    """The program of `tiny`: convolution, ReLU, pooling, palette, sparse weight, upsampling, concatenation, argmax."""
    generator = np.random.default_rng(0)
    program = Program()
    image = program.image("image", (4, 6))
    x = program.op("cast", (1, 3, 4, 6), "fp16", x=image, dtype="fp16")
    weight = program.const(generator.normal(size=(4, 3, 3, 3)).astype(np.float16))
    pads = np.array([1, 1, 1, 1], np.int32)
    x = program.op("conv", (1, 4, 4, 6), "fp16", x=x, weight=weight, pad_type="custom", pad=pads)
    skip = program.op("relu", (1, 4, 4, 6), "fp16", x=x)
    two = np.array([2, 2], np.int32)
    x = program.op("max_pool", (1, 4, 2, 3), "fp16", x=skip, kernel_sizes=two, strides=two, pad_type="valid")
    palette = program.constexpr(
        "constexpr_lut_to_dense",
        (4, 4, 1, 1),
        "fp16",
        indices=(generator.integers(0, 8, (4, 4, 1, 1)), "uint3"),
        lut=generator.normal(size=(1, 1, 1, 1, 8, 1)).astype(np.float16),
    )
    x = program.op("conv", (1, 4, 2, 3), "fp16", x=x, weight=palette, pad_type="valid")
    x = program.op(
        "upsample_bilinear", (1, 4, 4, 6), "fp16", x=x, scale_factor_height=2.0, scale_factor_width=np.float32(2)
    )
    x = program.op("concat", (1, 8, 4, 6), "fp16", values=[skip, x], axis=np.int32(1), interleave=np.bool_(False))
    mask = np.packbits(np.arange(16) % 2, bitorder="little")
    sparse = program.constexpr(
        "constexpr_sparse_to_dense",
        (2, 8, 1, 1),
        "fp16",
        attributes={
            "nonzero_data": generator.normal(size=8).astype(np.float16),
            "mask": mask,
            "shape": np.array([2, 8, 1, 1], np.uint32),
        },
    )
    x = program.op("conv", (1, 2, 4, 6), "fp16", x=x, weight=sparse, pad_type="valid")
    labels = program.op("reduce_argmax", (1, 4, 6), "int32", x=x, axis=np.int32(1), keep_dims=np.bool_(False))
    program.output(x, "fp16")
    program.output(labels, "int32")
    return program
