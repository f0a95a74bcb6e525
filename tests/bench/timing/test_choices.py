from __future__ import annotations

import itertools

import numpy as np
import pytest

from unet_edge_bench.timing.arguments import numbers, protocol_of, share, sizes, words
from unet_edge_bench.timing.choices import Choices, describe, rows_of
from unet_edge_bench.timing.fitting import draw_picture, fit_image, size_for
from unet_edge_bench.timing.pictures import Pictures
from unet_edge_bench.timing.plan import DEFAULT, QUICK
from unet_edge_runtime.errors import InputError, ModelFileError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.transform import preprocess, scaled_size


@pytest.fixture
def rows(tmp_path, pictures):
    """A function (models, choices) -> rows."""

    def make(*models, images=True, **choices):
        chosen = Choices(models, **{"threads": (1,), **choices})
        described = describe(chosen)
        given = sorted(pictures.images.iterdir()) if images else []
        return [row for _, row in rows_of(described, chosen, Pictures(tmp_path, given, described[0].spec))]

    return make


def test_the_matrix(rows, files):
    found = rows(files.onnx, sizes=((32, 48), (64, 64)), batches=(1, 2), threads=(1, 2), streams=(1, 2))
    combinations = {(row.size, row.batch, row.threads, row.streams) for row in found}
    assert combinations == set(itertools.product([(32, 48), (64, 64)], (1, 2), (1, 2), (1, 2)))
    assert len({row.id for row in found}) == len(found) == 16
    assert {row.label for row in found} == {"model.onnx, 1 thread", "model.onnx, 2 threads"}


def test_the_picture_becomes_the_network_input_that_was_asked_for(rows, files):
    for row in rows(files.checkpoint, files.onnx, sizes=((32, 48), (64, 64))):
        from unet_edge_runtime import load_backend

        assert preprocess(read_image(row.image), load_backend(row.path).spec).shape[1:] == row.size


@pytest.mark.parametrize("scale", [0.1, 0.25, 0.3, 1 / 3, 0.5, 0.7, 0.99, 1.0])
def test_a_picture_for_every_size(scale):
    for side in range(8, 700, 4):
        assert scaled_size(size_for((side, side + 16), scale), scale) == (side, side + 16)


def test_a_scale_that_skips_the_size():
    with pytest.raises(InputError, match="no image becomes 17x16 at scale 2"):
        fit_image(np.zeros((5, 5, 3), np.uint8), (17, 16), 2.0)


def test_a_size_that_a_fixed_model_does_not_take(rows, files):
    any_size, fixed = rows(files.onnx, files.fixed, sizes=((32, 48),))
    assert any_size.refused == ""
    assert fixed.refused == "takes 48x64 only, not 32x48: export it with --size 32x48"
    assert rows(files.fixed, sizes=((48, 64),))[0].refused == ""
    assert rows(files.onnx, sizes=((30, 48),))[0].refused.startswith("sides must be multiples of")


def test_without_sizes_the_image_decides(rows, files):
    any_size, fixed = rows(files.onnx, files.fixed)
    assert any_size.image == fixed.image
    assert read_image(any_size.image).shape == (60, 70, 3)
    assert fixed.size == (48, 64)


def test_without_images_a_picture_is_drawn_for_the_reference(rows, files):
    found = rows(files.fixed, files.onnx, images=False)
    assert [row.size for row in found] == [(48, 64), (48, 64)]


def test_the_same_file_twice_and_two_of_one_name(rows, files, tmp_path):
    twice = rows(files.onnx, files.onnx)
    assert [row.label for row in twice] == ["model.onnx", "model.onnx #2"]
    assert twice[0].id != twice[1].id
    copy = tmp_path / "new" / "model.onnx"
    copy.parent.mkdir()
    copy.write_bytes(files.onnx.read_bytes())
    assert [row.label for row in rows(files.onnx, copy)] == [f"{files.onnx.parent.name}/model.onnx", "new/model.onnx"]


def test_precisions_are_of_checkpoints(rows, files):
    found = rows(files.checkpoint, files.onnx, precisions=("fp32", "bf16"))
    assert [(row.label, row.options.get("precision")) for row in found] == [
        ("model.pth, fp32", "fp32"),
        ("model.pth, bf16", "bf16"),
        ("model.onnx", None),
    ]


def test_the_reference_comes_first(rows, files):
    assert [row.path for row in rows(files.onnx, files.checkpoint, reference=files.checkpoint)] == [
        files.checkpoint,
        files.onnx,
    ]
    assert rows(files.onnx, reference=files.other)[0].path == files.other


def test_a_damaged_model_is_a_failed_row(rows, files, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"no model")
    good, bad = rows(files.onnx, tmp_path / "bad.onnx")
    assert good.refused == ""
    assert "ONNX Runtime cannot load it" in bad.refused


def test_a_missing_model_ends_it(tmp_path):
    with pytest.raises(ModelFileError, match="no such model file"):
        describe(Choices((tmp_path / "none.onnx",)))


def test_too_many_rows(rows, files):
    with pytest.raises(InputError, match="100 rows are too many"):
        rows(files.onnx, batches=tuple(range(1, 11)), streams=tuple(range(1, 11)))


def test_values_of_options():
    assert numbers("1, 2,2", "--threads") == (1, 2)
    assert sizes("256x256,640X960", "--sizes") == ((256, 256), (640, 960))
    assert words("a, b,,a", "-") == ("a", "b")
    assert share("5%", "-") == share("0.05", "-") == 0.05
    assert protocol_of(True, None, 7, None, 3) == QUICK.__class__(**{**QUICK.__dict__, "rounds": 7, "seed": 3})
    assert protocol_of(False, None, None, None, 0) == DEFAULT


@pytest.mark.parametrize("text", ["", "0", "-1", "1,x", "1.5"])
def test_bad_numbers(text):
    with pytest.raises(InputError, match=r"--threads: .* is no list of whole numbers"):
        numbers(text, "--threads")


@pytest.mark.parametrize("text", ["", "0x5", "5", "5x5,6", "axb"])
def test_bad_sizes(text):
    with pytest.raises(InputError, match=r"--sizes: .* is no list of HEIGHTxWIDTH"):
        sizes(text, "--sizes")


def test_no_words():
    with pytest.raises(InputError, match="--precisions: ',' names nothing"):
        words(",", "--precisions")


def test_a_picture_is_never_larger_than_an_image_may_be():
    for make in (
        lambda: fit_image(np.zeros((5, 5, 3), np.uint8), (99984, 99984), 1.0),
        lambda: draw_picture((1 << 20, 1 << 20)),
    ):
        with pytest.raises(InputError, match="choose smaller --sizes"):
            make()


@pytest.mark.parametrize("text", ["", "%", "five", "5%%", "-5%", "5", "1"])
def test_bad_shares(text):
    with pytest.raises(InputError, match="is no share"):
        share(text, "--fail-if-slower")
