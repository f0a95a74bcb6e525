"""What Core ML needs besides: a Mac, coremltools, a child process, a picture, the right one of several functions."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tests.mac import compilations, make_fake_package, pretend_mac
from unet_edge_runtime import Segmenter, load_backend
from unet_edge_runtime.coreml_backend import CoreMLBackend
from unet_edge_runtime.errors import BackendError, MissingExtraError, ModelFileError

SIZE = (32, 48)


@pytest.fixture
def mac(monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache")


@pytest.fixture
def make_package(checkpoint, onnx_any, tmp_path):
    """A function (**how) -> a package of the contract's network."""

    def make(kind="imageType", returns=None, **fields):
        spec = load_backend(checkpoint).spec.replace(**{"input_size": SIZE, **fields})
        return make_fake_package(tmp_path / "a.mlpackage", onnx_any.read_bytes(), spec, kind, returns=returns)

    return make


def batch(size=SIZE):
    pixels = np.random.default_rng(0).integers(0, 256, (1, 3, *size), dtype=np.uint8)
    return pixels.astype(np.float32) / 255


def test_elsewhere_it_points_to_the_interpreter(make_package):
    with pytest.raises(
        BackendError, match=r"a\.mlpackage: Core ML runs on macOS only; .*--backend coreml-ref .*export to ONNX"
    ):
        CoreMLBackend(make_package())


def test_without_coremltools_it_names_the_extra(make_package, mac, monkeypatch):
    monkeypatch.setenv("FAKE_COREML_MISSING", "1")
    with pytest.raises(MissingExtraError, match=r"coremltools: pip install 'unet-edge\[export\]'"):
        CoreMLBackend(make_package())


def test_compute_units(make_package, mac):
    with pytest.raises(BackendError, match="compute units must be one of cpu, gpu, ane, all, not 'npu'"):
        CoreMLBackend(make_package(), compute_units="npu")


def test_a_file_is_no_package(tmp_path):
    (tmp_path / "a.mlpackage").touch()
    with pytest.raises(ModelFileError, match="no such Core ML package"):
        CoreMLBackend(tmp_path / "a.mlpackage")


@pytest.mark.parametrize("units", ["cpu", "gpu", "ane", "all"])
def test_every_choice_of_compute_units_runs(make_package, mac, onnx_any, units):
    backend = load_backend(make_package(), "coreml", compute_units=units)
    assert backend.compute_units == units
    np.testing.assert_allclose(backend.run(batch()), load_backend(onnx_any).run(batch()), atol=1e-5)
    backend.close()


def test_the_second_time_it_need_not_compile(make_package, mac):
    package = make_package()
    for _ in range(3):
        CoreMLBackend(package).close()
    assert compilations(package) == 1


def test_a_crash_on_the_neural_engine_is_an_error_and_the_cpu_still_works(make_package, monkeypatch, tmp_path):
    pretend_mac(monkeypatch, tmp_path / "cache", ane_predict="kill")
    package = make_package()
    with pytest.raises(BackendError, match=r"killed by SIGKILL .*\(ANECCompile\(\) FAILED\): try --compute-units cpu"):
        CoreMLBackend(package).run(batch())
    assert CoreMLBackend(package, "cpu").run(batch()).shape == (1, 2, *SIZE)


@pytest.mark.parametrize("size", [(32, 48), (64, 32)])
def test_the_function_of_the_batchs_size_runs(make_package, mac, onnx_any, size):
    backend = CoreMLBackend(make_package(input_sizes=((32, 48), (64, 32))))
    np.testing.assert_allclose(backend.run(batch(size)), load_backend(onnx_any).run(batch(size)), atol=1e-5)
    with pytest.raises(ValueError, match=r"takes images of \(32, 48\) or \(64, 32\) only"):
        backend.run(batch((32, 32)))


def test_a_missing_function_is_named(make_package, mac):
    package = make_package(input_sizes=((32, 48), (64, 32)))
    described = json.loads((package / "fake.json").read_text())
    described["functions"]["size_96x96"] = described["functions"].pop("size_64x32")
    (package / "fake.json").write_text(json.dumps(described))
    with pytest.raises(ModelFileError, match="has no function size_64x32: export it again"):
        CoreMLBackend(package)


@pytest.mark.parametrize(("returns", "values"), [("labels", ()), ("picture", (0, 255))])
def test_a_map_and_a_picture_of_labels(make_package, mac, onnx_any, returns, values):
    package = make_package(head="classmap", output_name="out", label_values=values, returns=returns)
    labels = CoreMLBackend(package).run(batch())
    expected = load_backend(onnx_any).run(batch()).argmax(1)[:, None]
    np.testing.assert_array_equal(labels, expected)
    assert labels.shape == (1, 1, *SIZE)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"input_name": "x"}, r"has inputs \['image'\] and outputs \['logits'\], its spec says x and logits"),
        ({"output_name": "y"}, r"its spec says image and y: export it again"),
    ],
)
def test_a_program_that_the_spec_does_not_describe(make_package, mac, change, message):
    package = make_package()
    described = json.loads((package / "fake.json").read_text())
    key = next(iter(described["metadata"]))
    spec = {**json.loads(described["metadata"][key]), **change}
    described["metadata"][key] = json.dumps(spec)
    (package / "fake.json").write_text(json.dumps(described))
    with pytest.raises(ModelFileError, match=message):
        CoreMLBackend(package)


def test_an_input_of_another_kind(make_package, mac):
    with pytest.raises(ModelFileError, match="its inputs are of the kinds"):
        CoreMLBackend(make_package(kind="dictionaryType"))


def test_a_backend_that_cannot_open_leaves_no_child(make_package, mac, monkeypatch):
    from unet_edge_runtime import coreml_backend

    started = []

    class Spy(coreml_backend.CoreMLProcess):
        def __init__(self, *arguments):
            super().__init__(*arguments)
            started.append(self)

    monkeypatch.setattr(coreml_backend, "CoreMLProcess", Spy)
    with pytest.raises(ModelFileError):
        CoreMLBackend(make_package(kind="dictionaryType"))
    assert started[0]._process.returncode is not None


def test_measure(make_package, mac):
    samples = CoreMLBackend(make_package()).measure(batch(), warmup=1, runs=4)
    assert len(samples["wall_ms"]) == 4
    assert samples["native_ms"] == [1.5] * 4


def test_a_photo_with_tiles(make_package, mac, photo, onnx_any):
    ours = Segmenter(CoreMLBackend(make_package())).segment(photo)
    assert ours.mask.size == (70, 50)


def test_the_commands_pass_compute_units_on(make_package, monkeypatch, tmp_path, photo):
    from click.testing import CliRunner
    from PIL import Image

    from unet_edge.cli import main

    pretend_mac(monkeypatch, tmp_path / "cache", ane_predict="kill")
    Image.fromarray(photo).save(tmp_path / "photo.png")
    arguments = ["predict", "-m", str(make_package()), str(tmp_path / "photo.png"), "--json"]
    crashed = CliRunner().invoke(main, arguments)
    assert crashed.exit_code == 1
    assert "killed by SIGKILL" in crashed.output
    done = CliRunner().invoke(main, [*arguments, "--compute-units", "cpu"])
    assert done.exit_code == 0, done.output
    assert json.loads(done.stdout)["backend"] == "coreml"
    assert (tmp_path / "photo_OUT.png").exists()


def test_other_backends_have_no_compute_units(onnx_any):
    with pytest.raises(BackendError, match="backend onnx has no option compute_units"):
        load_backend(onnx_any, compute_units="cpu")
