"""What is returned, printed and refused."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest

from unet_edge_bench.layers import LayerReport, LayerRow, compare_layers
from unet_edge_runtime.errors import BackendError, InputError, MissingExtraError, ModelFileError

from .conftest import LOUD, loud_model, write


def row(name, **changes):
    fields = {"max_difference": 0.5, "snr_db": 12.34, "local_error": 0.25, "rounding": 7.0, "departs": False}
    return LayerRow(name, "conv", (4, 8, 8), **fields | changes)


def test_the_table_marks_the_first_and_ends_with_the_reason():
    first = row("inc.double_conv.0", departs=True)
    rows = (row("input", max_difference=0.0, snr_db=None, local_error=None, rounding=None), first, row("outc.conv"))
    text = LayerReport("a.pth", "b.onnx", (8, 8), rows, first, "inc.double_conv.0 has other weights.").table()
    lines = text.splitlines()
    assert lines[0] == "b.onnx against a.pth, layer by layer, on 8x8 network pixels"
    assert [line for line in lines if "departs first" in line] == [lines[4]]
    assert lines[3].split()[3:] == ["0", "identical", "-", "-"]
    assert lines[-1] == "inc.double_conv.0 has other weights."
    assert {len(line.partition("4x8x8")[0]) for line in lines[3:6]} == {len("inc.double_conv.0  conv  ")}


def test_the_table_of_what_agrees_says_so():
    assert LayerReport("a", "b", (8, 8), (row("x"),), None, "").table().endswith("those of rounding.")


def test_a_report_is_json_even_with_infinite_values(tmp_path, photo):
    model = loud_model()
    report = compare_layers(write("onnx", model, tmp_path / "a"), write("package", model, tmp_path / "b"), photo)
    data = json.loads(json.dumps(report.to_dict(), allow_nan=False))
    assert data["first"] == LOUD
    assert "overflows fp16" in data["reason"]
    rows = {each["name"]: each for each in data["rows"]}
    assert rows[LOUD]["finite"] is False
    assert rows[LOUD]["max_difference"] is None
    assert rows["inc.double_conv.0"]["finite"] is True
    assert data["size"] == [64, 96]
    assert f"{LOUD} " in report.table()


def test_the_growth_of_the_error_is_against_the_reference_s_own_values(files, photo):
    """The last row's difference is that of the two backends' results."""
    from unet_edge_runtime.backend import load_backend

    paths = files("checkpoint"), files("package")
    report = compare_layers(*paths, photo[:48, :64])
    backends = load_backend(paths[0]), load_backend(paths[1], "coreml-ref")
    padded = np.zeros((3, 64, 96), np.float32)
    x = np.moveaxis(photo[:48, :64], 2, 0).astype(np.float32) / 255
    padded[:] = np.pad(x, [(0, 0), (0, 16), (0, 32)], mode="reflect")
    theirs, its = (backend.run(padded[None]) for backend in backends)
    assert report.rows[-1].max_difference == pytest.approx(float(np.abs(theirs - its).max()), rel=1e-3)
    noise = float(np.square((its - theirs).astype(np.float64)).sum())
    assert report.rows[-1].snr_db == pytest.approx(10 * np.log10(float(np.square(theirs).sum()) / noise), abs=0.01)


def test_packages_without_a_common_size(files, photo):
    with pytest.raises(InputError, match=r"the packages take images of .* export one of them at the other's --size"):
        compare_layers(files("package"), files("package", input_size=(32, 32)), photo)


def test_a_package_with_several_sizes(files, photo, tmp_path):
    pytest.importorskip("coremltools", reason="coremltools has no wheel for this machine")
    from tests.export.conftest import lively_model
    from unet_edge_export.to_coreml import PackageOptions, write_coreml

    from .conftest import spec_for

    model = lively_model(up="bilinear")
    sizes = ((32, 48), (64, 96))
    spec = spec_for(model, input_size=sizes[0], input_sizes=sizes, precision="fp16")
    write_coreml(model, spec, tmp_path / "two.mlpackage", PackageOptions("macOS15"))
    for image, size in [(photo, (64, 96)), (photo[:30, :40], (32, 48))]:
        report = compare_layers(files("checkpoint"), tmp_path / "two.mlpackage", image)
        assert (report.size, report.reason) == (size, "")


def test_a_backend_that_does_not_fit(files, photo):
    with pytest.raises(BackendError, match="backend onnx does not run it"):
        compare_layers(files("checkpoint"), files("checkpoint"), photo, backends=(None, "onnx"))
    report = compare_layers(files("checkpoint"), files("package"), photo, backends=("torch", "coreml"))
    assert report.reason == ""


def test_files_that_are_none_of_ours(files, photo, tmp_path):
    (tmp_path / "bad.onnx").write_bytes(b"not a model")
    with pytest.raises(ModelFileError, match=r"bad\.onnx"):
        compare_layers(files("checkpoint"), tmp_path / "bad.onnx", photo)
    with pytest.raises(ModelFileError, match="no such model file"):
        compare_layers(files("checkpoint"), tmp_path / "missing.onnx", photo)


@pytest.mark.parametrize("missing", ["torch", "onnx"])
def test_a_missing_package_names_the_extra(files, photo, missing):
    paths = [str(files("checkpoint")), str(files("onnx"))]
    code = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == {missing!r}:
            raise ModuleNotFoundError(name, name=name)
sys.meta_path.insert(0, Blocked())
sys.path[:0] = {sys.path!r}
import numpy as np
from pathlib import Path
from unet_edge_bench.layers import compare_layers
from unet_edge_runtime.errors import MissingExtraError
try:
    compare_layers(*map(Path, {paths!r}), np.zeros((50, 70, 3), np.uint8))
except MissingExtraError as error:
    print(error)
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(MissingExtraError(missing, "export", "the comparison by layer"))


def test_the_values_of_a_network_are_no_more_than_expected(tmp_path, make_model):
    """What the cut of large images relies on, so that wide networks stay within memory."""
    from unet_edge_bench.layers.compare import VALUES_PER_PIXEL
    from unet_edge_bench.layers.from_checkpoint import CheckpointModel

    model = CheckpointModel(write("checkpoint", make_model(depth=4, base_channels=8), tmp_path / "deep"))
    seen = []
    model.run(np.zeros((1, 3, 64, 64), np.float32), lambda name, value: seen.append(value.numel()))
    assert 0.85 * VALUES_PER_PIXEL < sum(seen) / 64**2 / 8 < VALUES_PER_PIXEL
