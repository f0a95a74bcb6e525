"""Outputs that are kept in a folder: the same bits later, and nothing believed."""

from __future__ import annotations

import io
import json
import shutil
import zipfile

import numpy as np
import pytest
from PIL import Image

from unet_edge_bench.verify import Model, Recording, SavedOutputs, collect, common_samples, compare, record, samples_of
from unet_edge_runtime.errors import InputError


@pytest.fixture(scope="module")
def saved(tmp_path_factory, checkpoint, samples):
    folder = tmp_path_factory.mktemp("outputs") / "torch"
    collect(Model.open(checkpoint), samples, folder)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    """The folder of outputs, to be damaged."""
    return shutil.copytree(saved, tmp_path / "copy")


def change_index(folder, change):
    index = json.loads((folder / "outputs.json").read_text())
    change(index)
    (folder / "outputs.json").write_text(json.dumps(index))


def test_the_same_bits(saved, checkpoint, samples):
    side, model = SavedOutputs(saved), Model.open(checkpoint)
    for sample in samples:
        again, now = side.output(sample), model.output(sample)
        assert again.size == now.size
        assert again.values.tobytes() == now.values.tobytes()
    assert (side.spec, side.name) == (model.spec, "net.pth")
    assert side.machine["packages"]["numpy"] == np.__version__
    assert side.facts()["sha256"] == model.facts()["sha256"]


def test_two_folders_are_compared_without_models_or_images(saved, checkpoint, onnx_file, samples, tmp_path):
    other = collect(Model.open(onnx_file), samples, tmp_path / "onnx")
    found, notes = common_samples([SavedOutputs(saved), other])
    assert notes == []
    assert all(sample.image is None for sample in found)
    result = compare(SavedOutputs(saved), [other], found)
    assert result.passed
    assert result.images == 3
    live = compare(Model.open(checkpoint), [Model.open(onnx_file)], samples)
    assert result.pairs[0].measured == live.pairs[0].measured


def test_an_interrupted_run_goes_on(checkpoint, samples, tmp_path, monkeypatch):
    folder, model = tmp_path / "part", Model.open(checkpoint)
    assert record(Recording(model, folder), samples[:2]) == []
    first = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    ran = []
    run = model.output
    monkeypatch.setattr(model, "output", lambda sample: ran.append(sample.name) or run(sample))
    assert record(Recording(model, folder), samples) == []
    assert ran == [samples[2].name]
    after = {path.name: path.stat().st_mtime_ns for path in folder.glob("*.npz")}
    assert len(after) == 3
    assert first.items() <= after.items()
    assert len(SavedOutputs(folder).samples) == 3


def test_a_killed_run_goes_on(checkpoint, samples, tmp_path):
    folder = tmp_path / "killed"
    Recording(Model.open(checkpoint), folder).output(samples[0])  # and never `close`
    assert record(Recording(Model.open(checkpoint), folder), samples) == []
    assert len(SavedOutputs(folder).samples) == 3


def test_another_model_does_not_go_on_there(saved, onnx_file):
    with pytest.raises(InputError, match=r"holds the outputs of another model \(net\.pth\): choose another folder"):
        Recording(Model.open(onnx_file), saved)


def test_somebodys_folder_is_left_alone(checkpoint, tmp_path):
    (tmp_path / "letter.txt").write_text("dear")
    with pytest.raises(InputError, match="is not empty"):
        Recording(Model.open(checkpoint), tmp_path)


def test_an_image_that_changed_is_told(saved, samples, tmp_path):
    changed = tmp_path / samples[0].name
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(changed)
    with pytest.raises(InputError, match=f"its {changed.name} is another image of this name"):
        common_samples([SavedOutputs(saved)], samples_of([changed, samples[1].image]))


def test_an_image_that_is_missing_is_left_out_with_a_note(saved, samples, tmp_path):
    extra = tmp_path / "new.png"
    Image.fromarray(np.zeros((48, 64, 3), np.uint8)).save(extra)
    kept, notes = common_samples([SavedOutputs(saved)], [*samples, *samples_of([extra])])
    assert [sample.name for sample in kept] == [sample.name for sample in samples]
    assert notes == [f"1 of 4 images have no output in {saved}"]
    with pytest.raises(InputError, match="holds no output of these images"):
        common_samples([SavedOutputs(saved)], samples_of([extra]))


def one_output(folder):
    return sorted(folder.glob("*.npz"))[0]


def as_member(array, **options):
    stream = io.BytesIO()
    np.save(stream, array, **options)
    return stream.getvalue()


def header(shape):
    stream = io.BytesIO()
    np.lib.format.write_array_header_1_0(stream, {"descr": "<f4", "fortran_order": False, "shape": shape})
    return stream.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        as_member(np.zeros((3, 48, 63), np.float32)),
        as_member(np.zeros((3, 48, 64), np.float64)),
        as_member(np.array([{"a": 1}] * 9, object), allow_pickle=True),
        header((1 << 20, 1 << 20)),
        header((3, 48, 64)) + b"short",
        b"\0" * (1 << 24),
        b"",
    ],
    ids=["shape", "type", "pickle", "promise", "short", "large", "empty"],
)
def test_a_forged_output_is_refused(copy, samples, content):
    with zipfile.ZipFile(one_output(copy), "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr("output.npy", content)
    side = SavedOutputs(copy)
    forged = next(sample for sample in samples if one_output(copy).stem == sample.sha256)
    with pytest.raises(InputError, match=r"\.npz: damaged"):
        side.output(forged)
    result = compare(side, [side], samples)
    assert result.images == 2
    assert not result.passed
    assert "damaged" in result.failures[0]


def test_a_missing_output_is_told(copy, samples):
    one_output(copy).unlink()
    assert (
        "is missing: save the outputs again" in compare(SavedOutputs(copy), [SavedOutputs(copy)], samples).failures[0]
    )


def set_image(key, value):
    return lambda index: index["images"][0].update({key: value})


@pytest.mark.parametrize(
    "change",
    [
        set_image("sha256", "../../../etc/passwd"),
        set_image("sha256", 5),
        set_image("size", [1 << 20, 1 << 20]),
        set_image("size", [0, 3]),
        set_image("size", [1.5, 3]),
        set_image("size", "xy"),
        lambda index: index.update(images=[3]),
        lambda index: index.update(model=None),
        lambda index: index["spec"].update(channels=99),
        lambda index: index.update(schema="something-else/1"),
        lambda index: index.pop("machine"),
        lambda index: index["model"].update(bytes=float("inf")),
    ],
)
def test_a_forged_index_is_refused(copy, change):
    change_index(copy, change)
    with pytest.raises(InputError, match=r"outputs\.json: "):
        SavedOutputs(copy)


@pytest.mark.parametrize("content", [b"", b"{", b"[1]", b"\xff", b"[" * 100_000])
def test_a_damaged_index_is_refused(copy, content):
    (copy / "outputs.json").write_bytes(content)
    with pytest.raises(InputError, match=r"outputs\.json: "):
        SavedOutputs(copy)


def test_a_folder_of_something_else_is_refused(tmp_path):
    with pytest.raises(InputError, match="neither a model nor a folder made by --save-outputs"):
        SavedOutputs(tmp_path)


def test_what_ran_with_other_versions_is_not_gone_on_with(copy, checkpoint):
    change_index(copy, lambda index: index["machine"]["packages"].update(torch="0.1"))
    with pytest.raises(InputError, match="made on another machine or with other versions: choose another folder"):
        Recording(Model.open(checkpoint), copy)


def test_what_ran_on_other_compute_units_is_not_gone_on_with(checkpoint, samples, tmp_path):
    first, second = Model.open(checkpoint), Model.open(checkpoint)
    first.segmenter.backend.compute_units, second.segmenter.backend.compute_units = "cpu", "ane"
    collect(first, samples[:1], tmp_path / "outputs")
    assert SavedOutputs(tmp_path / "outputs").facts()["compute_units"] == "cpu"
    Recording(first, tmp_path / "outputs")
    with pytest.raises(InputError, match="holds the outputs of another model"):
        Recording(second, tmp_path / "outputs")
