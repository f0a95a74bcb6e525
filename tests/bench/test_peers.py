"""benchmarks/peers: what of it runs without the peers' packages."""

import importlib
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tests.drawn import VALUES, write_pairs
from unet_edge.checkpoint import read_checkpoint, save_checkpoint
from unet_edge.losses import make_loss
from unet_edge.torch_backend import TorchBackend
from unet_edge_runtime.errors import BackendError, InputError, ModelFileError
from unet_edge_runtime.onnx_backend import OnnxBackend
from unet_edge_runtime.segmenter import Segmenter

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
PEERS = BENCHMARKS / "peers"
RUNNERS = [*sorted(path.stem for path in PEERS.glob("*runner*.py")), "bare_session", "peer_backend"]
PACKAGES = ("openvino", "ncnn", "MNN", "ai_edge_litert", "executorch", "onnxruntime", "torch", "onnx", "click")


@pytest.fixture
def peers(monkeypatch):
    """A function name -> module of benchmarks/peers."""
    monkeypatch.syspath_prepend(BENCHMARKS)
    monkeypatch.syspath_prepend(PEERS)
    yield importlib.import_module
    for name in {path.stem for path in PEERS.glob("*.py")} & set(sys.modules):
        del sys.modules[name]


@pytest.fixture(scope="module")
def three_classes(tmp_path_factory, make_model, make_spec):
    path = tmp_path_factory.mktemp("peers") / "best.pth"
    save_checkpoint(path, make_model(classes=3, up="bilinear"), make_spec(VALUES), {})
    return path


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    return write_pairs(tmp_path_factory.mktemp("pairs"), 12)


def test_every_pin_is_a_pin():
    for file in PEERS.glob("requirements/*.txt"):
        lines = [line for line in file.read_text().splitlines() if not line.startswith("#")]
        assert lines
        assert [line for line in lines if not re.fullmatch(r"[\w.-]+==[\w.]+", line)] == [], file.name


def test_every_peer_with_an_environment_pins_its_package_and_what_the_runtime_needs(peers):
    own = {peer.name: peer.package for peer in peers("roster").PEERS if peer.own}
    assert own.keys() == {file.stem for file in PEERS.glob("requirements/*.txt")}
    for name, package in own.items():
        assert {package, "numpy", "pillow"} <= peers("environments").pinned(name).keys()


@pytest.mark.parametrize("module", RUNNERS)
def test_a_runner_is_imported_without_its_package(module):
    block = f"""
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {PACKAGES!r}:
            raise ModuleNotFoundError(name)
sys.meta_path.insert(0, Blocked())
sys.path[:0] = {[str(BENCHMARKS.parent / "runtime"), str(BENCHMARKS), str(PEERS)]!r}
import {module}
"""
    done = subprocess.run([sys.executable, "-c", block], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


def test_results_say_the_command_that_made_them():
    text = (BENCHMARKS / "RESULTS.md").read_text(encoding="utf-8")
    assert "Made by `python benchmarks/peers/run.py --checkpoint" in text


@pytest.mark.parametrize("up", ["bilinear", "transposed"])
def test_a_widened_network_computes_the_same(peers, tmp_path, make_model, make_spec, up):
    save_checkpoint(tmp_path / "x.pth", make_model(up=up), make_spec(), {})
    narrow = read_checkpoint(tmp_path / "x.pth")
    wide = peers("models").widened(narrow, 12)
    x = torch.rand(2, 3, 16, 24)
    with torch.no_grad():
        expected = narrow.build()(x)
        assert (wide(x) - expected).abs().max() < 1e-4 * expected.abs().max()
    assert wide.inc.double_conv[0].out_channels == 12
    with pytest.raises(InputError, match="no multiple"):
        peers("models").widened(narrow, 6)


@pytest.fixture
def model(peers, three_classes, pairs, tmp_path):
    images = sorted(pairs[0].iterdir())
    return peers("models").make_model("48x64", three_classes, (48, 64), images[:1], tmp_path)


def test_the_bare_session_and_eager_pytorch_agree_with_our_backends(peers, model):
    batch = np.random.default_rng(0).random((2, 3, 48, 64), np.float32)
    bare = peers("bare_session").BareSession(model.onnx, threads=1)
    assert np.array_equal(bare.run(batch), np.concatenate([OnnxBackend(model.onnx).run(one[None]) for one in batch]))
    eager = peers("torch_runners").EagerRunner(model.checkpoint, threads=1)
    assert eager.inner.model.inc.double_conv[0].weight.is_contiguous()
    np.testing.assert_allclose(eager.run(batch), TorchBackend(model.checkpoint).run(batch), atol=1e-4)


def test_a_converted_model_without_its_spec_is_refused_in_one_line(peers, model):
    peers("peer_backend").spec_file(model.onnx).unlink()
    with pytest.raises(ModelFileError, match=r"spec\.json is not"):
        peers("bare_session").BareSession(model.onnx)


def test_a_size_that_the_photos_cannot_have_is_refused(peers, three_classes, tmp_path):
    make = peers("models").make_model
    with pytest.raises(InputError, match="at no scale"):
        make("48x48", three_classes, (48, 64), [], tmp_path)
    with pytest.raises(InputError, match="give HxW"):
        make("48", three_classes, (48, 64), [], tmp_path)


def test_milesials_masks_are_ours_where_no_size_is_odd(peers, model, pairs, tmp_path):
    photos = sorted(pairs[0].iterdir())[:3]
    network, scale, values = peers("milesial").load(model.checkpoint)
    segmenter = Segmenter.open(model.onnx)
    for photo in photos:
        peers("milesial").predict(network, scale, values, photo, tmp_path / "theirs.png")
        theirs = np.asarray(Image.open(tmp_path / "theirs.png"))
        assert set(np.unique(theirs)) <= set(VALUES)
        assert len(np.unique(theirs)) > 1
        assert (theirs != np.asarray(segmenter.segment(photo).mask)).mean() < 1e-3


def test_milesials_dice_loss_is_ours_pooled(peers):
    logits, labels = torch.randn(2, 3, 8, 8), torch.randint(0, 3, (2, 8, 8))
    truth = torch.nn.functional.one_hot(labels, 3).movedim(3, 1).float()
    theirs = peers("milesial")._dice_loss(torch.softmax(logits, dim=1), truth)
    torch.testing.assert_close(theirs, make_loss("pooled_dice")(logits, labels))


@pytest.mark.parametrize("amp", [False, True])
def test_milesials_training_steps_through_every_image_and_learns(peers, model, pairs, monkeypatch, amp):
    monkeypatch.setattr("os.cpu_count", lambda: 1)
    names = sorted(path.stem for path in pairs[0].iterdir())[:3]
    training = peers("milesial").Training(model.checkpoint, *pairs, names, "_mask", batch=2, amp=amp)
    before = training.model.outc.conv.weight.detach().clone()
    steps = list(training.epoch())
    assert [images for images, _ in steps] == [2, 1]
    assert all(np.isfinite(loss) for _, loss in steps)
    assert not torch.equal(before, training.model.outc.conv.weight)


@pytest.fixture
def rows(peers, model, make_model, make_spec, tmp_path):
    """Eager PyTorch, ours, another network, and a runner that does not exist."""
    from unet_edge_bench.timing.plan import Row

    env = {"PYTHONPATH": peers("environments").paths("")}
    other = tmp_path / "other.pth"
    save_checkpoint(other, make_model(seed=1, classes=3), make_spec(VALUES), {})
    image = next(tmp_path.glob("*"))
    return [
        Row("torch", model.checkpoint, "torch_runners:EagerRunner", image, 1, env=env),
        Row("ours", model.onnx, "onnx", image, 1, env=env),
        Row("other", other, "torch", image, 1, env=env),
        Row("broken", model.onnx, "no_such_runner:Nothing", image, 1, env=env),
    ]


def test_agreement_tells_the_same_the_other_and_the_broken_apart(peers, rows, model, pairs):
    images, masks = (sorted(folder.iterdir()) for folder in pairs)
    spec = TorchBackend(model.checkpoint).spec
    found = peers("agree").judge(rows, "torch", spec, images[:2], dict(zip(images, masks, strict=True)))
    assert found["torch"]["agreement"] is None
    assert found["ours"]["agreement"]["passed"]
    assert found["ours"]["agreement"]["strict"]
    assert found["ours"]["scores"] == pytest.approx(found["torch"]["scores"], abs=1e-3)
    assert not found["other"]["agreement"]["passed"]
    assert "no_such_runner" in found["broken"]["agreement"]["problems"][0]


def test_a_command_that_fails_gives_its_last_line(peers):
    call = peers("environments").call
    with pytest.raises(BackendError, match="exit code 3: ERROR: no such thing"):
        call([sys.executable, "-c", "import sys; print('ERROR: no such thing', file=sys.stderr); sys.exit(3)"])
    with pytest.raises(BackendError, match="cannot be started"):
        call(["/no/such/program"])


def road(ratio, low, high, verdict):
    side = {"median": 2.0, "low": 1.0, "high": 3.0}
    estimate = {"median": ratio, "low": low, "high": high}
    return {"what": "a road", "sides": {"ours": side, "milesial": side}, "ratio": estimate, "verdict": verdict}


def row(name, milliseconds, passed=True):
    turns = [[[milliseconds * (1 + 0.001 * (launch + turn))] * 3 for turn in range(3)] for launch in range(5)]
    statistics = {"median": milliseconds, "low": milliseconds * 0.99, "high": milliseconds * 1.01}
    problems = [] if passed else ["50 % of the labels equal"]
    return {
        "id": name,
        "label": name.upper(),
        "status": "ok",
        "samples_ms": {"inference": turns},
        "statistics": {"inference": statistics, "total": statistics},
        "startup_ms": {"import": [1.0], "load": [1.0], "first_run": [1.0]},
        "peak_memory_bytes": [1 << 20],
        "bytes": 1 << 20,
        "scores": None,
        "agreement": {
            "passed": passed,
            "strict": passed,
            "problems": problems,
            "max_logit_difference": 0.5,
            "different_pixels": 7,
            "pixels": 2_000_000,
        },
    }


@pytest.fixture
def results():
    failed = {**row("gone", 1.0), "status": "failed", "reason": "it crashed", "statistics": None}
    noise = {"reliable": True, "reasons": [], "spread": 0.01, "drift": 0.0}
    protocol = {"launches": 5, "rounds": 3, "seconds_per_turn": 0.4, "min_samples": 3}
    rows = [row("ours", 20.0), row("quick", 10.0), row("slow", 40.0), row("same", 20.0), row("bad", 1.0, False), failed]
    machine = {"memory_bytes": None, "processor": "a CPU", "cores": 2, "system": "S", "machine": "m", "python": "3"}
    return {
        "campaigns": [
            {"name": "a net", "results": {"rows": rows, "seed": 0, "noise": noise, "protocol": protocol}},
        ],
        "roads": [road(3.0, 2.0, 4.0, "slower"), road(1.0, 0.5, 2.0, "cannot tell")],
        "roads_left_out": ["process start: it crashed"],
        "different_pixels": {"a net": 0.001},
        "left_out": ["MNN: no wheel"],
        "versions": {"ours": "1.2"},
        "machine": machine,
        "command": "python benchmarks/peers/run.py --checkpoint x",
        "created": "2026-01-02T03:04:05+00:00",
        "threads": 2,
        "origin": "Timed on x",
    }


def test_the_reading_follows_from_the_numbers(peers, results):
    sentences = peers("report").reading(results)
    assert "a net: BAD does not agree: 50 % of the labels equal." in sentences
    faster, slower, unknown = (next(s for s in sentences if word in s) for word in ("faster than", "slower", "cannot"))
    assert ("QUICK (0.50×" in faster, "BAD" in faster, "SLOW" in faster) == (True, False, False)
    assert ("SLOW (2.00×" in slower, "QUICK" in slower) == (True, False)
    assert "SAME (1.00×" in unknown
    assert "ours is faster" in sentences[-2]
    assert "cannot tell" in sentences[-1]


def test_an_unquiet_machine_and_an_unmeasured_ours_are_said(peers, results):
    campaign = results["campaigns"][0]["results"]
    campaign["noise"].update(reliable=False, reasons=["it drifted"])
    campaign["rows"] = campaign["rows"][1:]
    sentences = peers("report").reading(results)
    assert any("not quiet" in sentence and "it drifted" in sentence for sentence in sentences)
    assert any("ours was not measured" in sentence for sentence in sentences)


def test_the_page_shows_wrong_failed_and_left_out(peers, results):
    text = peers("report").markdown(results)
    lines = {line.split(" | ")[0].strip("| "): line for line in text.splitlines() if line.startswith("| ")}
    assert "**wrong**" in lines["BAD"]
    assert "×" not in lines["BAD"]
    assert "it crashed" in lines["GONE"]
    assert "faster" in lines["QUICK"]
    assert "beyond what our exports may have" in lines["BAD"]
    assert "Left out: MNN: no wheel." in text
    assert "Left out: process start: it crashed." in text
    counts = {len(re.findall(r"(?<!\\)\|", line)) for line in lines.values() if "ms |" not in line[:10]}
    assert counts <= {12, 6, 4}


def test_what_was_measured_is_written_and_its_place_said(peers, capsys, tmp_path):
    page, raw = tmp_path / "R.md", tmp_path / "raw.json"
    write = peers("reporting").measure_and_write
    assert write(lambda: {"n": 3}, lambda results: f"# {results['n']}", page, raw) == 0
    assert (page.read_text(encoding="utf-8"), json.loads(raw.read_text(encoding="utf-8"))) == ("# 3", {"n": 3})
    assert capsys.readouterr() == (f"{page}\n", "")


@pytest.mark.parametrize(
    ("error", "line"), [(InputError("no"), "error: no\n"), (KeyboardInterrupt(), "interrupted: nothing was written\n")]
)
def test_a_measurement_that_ends_early_writes_nothing(peers, capsys, tmp_path, error, line):
    def measure():
        raise error

    page, raw = tmp_path / "R.md", tmp_path / "raw.json"
    assert peers("reporting").measure_and_write(measure, str, page, raw) == 1
    assert capsys.readouterr() == ("", line)
    assert list(tmp_path.iterdir()) == []


def test_bad_options_give_one_line(peers, capsys, three_classes, pairs, tmp_path):
    main = peers("run").main
    common = ["--checkpoint", str(three_classes), "--cache", str(tmp_path), "--markdown", str(tmp_path / "R.md")]
    assert main([*common, "--images", str(pairs[0]), "--only", "nothing"]) == 1
    assert main([*common, "--images", str(tmp_path / "none")]) == 1
    first, second = capsys.readouterr().err.splitlines()
    assert "no peer 'nothing': --only takes ours, onnxruntime" in first
    assert "is not a folder" in second
    assert not (tmp_path / "R.md").exists()


@pytest.mark.slow
def test_the_command_measures_and_writes(peers, capsys, three_classes, pairs, tmp_path):
    images, masks = map(str, pairs)
    files = ["--output", str(tmp_path / "raw.json"), "--markdown", str(tmp_path / "R.md"), "--cache", str(tmp_path)]
    given = ["--checkpoint", str(three_classes), "--images", images, "--masks", masks, "--sizes", "48x64"]
    assert peers("run").main([*given, *files, "--threads", "1", "--only", "onnxruntime,milesial", "--quick"]) == 0
    text = (tmp_path / "R.md").read_text(encoding="utf-8")
    raw = json.loads((tmp_path / "raw.json").read_text(encoding="utf-8"))
    assert [row["status"] for row in raw["campaigns"][0]["results"]["rows"]] == ["ok"] * 3
    assert all((row["agreement"] or {"passed": True})["passed"] for row in raw["campaigns"][0]["results"]["rows"])
    assert {road["what"].partition(",")[0] for road in raw["roads"]} == {"photo to mask file"}
    assert raw["roads_left_out"] == []
    assert str(tmp_path) not in text
    assert str(Path(images).parent) not in text
