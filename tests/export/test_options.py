"""Options that must fit each other are refused before anything is converted, and defaults follow from them."""

from __future__ import annotations

import pytest

from unet_edge.checkpoint import class_infos
from unet_edge_export import export_model
from unet_edge_export.options import check_layers, choose_target, head_changes
from unet_edge_export.sizes import input_sizes
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.spec import ModelSpec

from .conftest import lively_model


def spec_for(values=(0, 1), **changes):
    return ModelSpec(channels=3, classes=class_infos(list(values)), outputs=len(values), multiple=4, **changes)


@pytest.mark.parametrize(
    ("asked", "sizes", "compression", "target", "note"),
    [
        (None, 1, None, "macOS14", ""),
        (None, 0, "int8", "macOS14", ""),
        ("macOS13", 1, None, "macOS13", ""),
        (None, 2, None, "macOS15", "several sizes needs macOS15"),
        (None, 1, "int4", "macOS15", "--compress int4 needs macOS15"),
        (None, 3, "int4", "macOS15", "needs macOS15"),
        ("macOS26", 2, "int4", "macOS26", ""),
    ],
)
def test_the_target_follows_from_what_is_asked(asked, sizes, compression, target, note):
    chosen, said = choose_target(asked, sizes, compression)
    assert chosen == target
    assert note in said
    assert bool(note) == bool(said)


@pytest.mark.parametrize(("sizes", "compression"), [(2, None), (1, "int4")])
def test_a_target_that_is_too_old_is_refused(sizes, compression):
    with pytest.raises(InputError, match="needs macOS15 or later, not macOS14: raise --target or leave it out"):
        choose_target("macOS14", sizes, compression)


@pytest.mark.parametrize(
    ("format", "options", "message"),
    [
        ("onnx", {"compression": "int8"}, "--compress is for Core ML"),
        ("onnx", {"head": "mask-image"}, "--head mask-image is for Core ML"),
        ("onnx", {"size": [(32, 32), (64, 64)]}, "several sizes are for Core ML"),
        ("onnx", {"precision": "mixed", "fp32_layers": ["outc"]}, "onnx is exported in fp32"),
        ("coreml", {"precision": "mixed"}, "--precision mixed and --fp32-layers belong together"),
        ("coreml", {"fp32_layers": ["outc"]}, "--precision mixed and --fp32-layers belong together"),
        (
            "coreml",
            {"precision": "mixed", "fp32_layers": ["outx"]},
            "has no outx; its blocks are inc, down1, down2, up1",
        ),
        ("coreml", {"compression": "zip"}, "compression must be one of int8"),
        ("coreml", {"size": [(32, 32), (64, 63)]}, "the nearest is 64x64"),
        ("coreml", {"dynamic": True, "size": [(32, 32), (64, 64)]}, "exclude each other"),
    ],
)
def test_what_does_not_fit_is_refused(make_checkpoint, format, options, message):
    with pytest.raises(InputError, match=message):
        export_model(make_checkpoint(), format, **options)


def test_layers_have_the_names_of_the_checkpoint():
    check_layers(lively_model(), ["outc", "up1.conv", "down2.maxpool_conv.1", "head"])


def test_a_size_given_twice_is_one_size():
    assert input_sizes(spec_for(), "coreml", [(32, 32), (64, 64), (32, 32)], False, "") == (((32, 32), (64, 64)), "")


@pytest.mark.parametrize(
    ("values", "pictured"),
    [((0, 1), (0, 255)), ((0, 255), (0, 255)), ((0, 1, 2), (0, 1, 2)), ((4, 200, 90), (4, 200, 90))],
)
def test_a_mask_image_has_the_values_of_the_masks(values, pictured):
    changes = head_changes(spec_for(values), "coreml", "mask-image")
    assert changes == {"head": "classmap", "output_name": "mask", "label_values": pictured}
    spec_for(values).replace(**changes)


@pytest.mark.parametrize("values", [((0, 0, 0), (255, 0, 0)), (0, 256)])
def test_values_that_no_grey_picture_holds(values):
    with pytest.raises(InputError, match=r"colours or values above 255.*--head classmap"):
        head_changes(spec_for(values), "coreml", "mask-image")


def test_names_of_outputs():
    spec = spec_for()
    assert head_changes(spec, "coreml", "classmap")["output_name"] == "semanticPredictions"
    assert head_changes(spec, "onnx", "classmap")["output_name"] == "classmap"
    assert head_changes(spec, "coreml", "logits")["output_name"] == "logits"
