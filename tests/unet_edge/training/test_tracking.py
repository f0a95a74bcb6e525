"""Tracking: what is recorded, what a resumed run shows, and that no tracker ever stops or delays a run."""

from __future__ import annotations

import io
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from unet_edge.checkpoint import class_infos
from unet_edge.training.tracking import TRACKERS, Example, open_tracker, score_scalars
from unet_edge.training.tracking.channel import WAITING, Channel
from unet_edge.training.tracking.tracker import Tracker
from unet_edge.training.tracking.values import SAMPLE, histograms_of
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.spec import ModelSpec

CONFIG = {"train": {"epochs": 3, "crop": None}}


@pytest.fixture
def said():
    return []


def read(folder):
    return EventAccumulator(str(folder / "tensorboard"), size_guidance={"scalars": 0, "images": 0}).Reload()


def curve(folder, tag="train/loss"):
    return [(event.step, round(event.value, 4)) for event in read(folder).Scalars(tag)]


def network():
    """A convolution with gradients."""
    torch.manual_seed(0)
    model = torch.nn.Conv2d(3, 8, 3)
    model(torch.rand(1, 3, 8, 8)).square().sum().backward()
    return model


def test_scalars_and_the_configuration_are_read_back(tmp_path, said):
    with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
        for step in (1, 2, 3):
            tracker.scalars(step, {"train/loss": 1 / step, "train/learning_rate": 0.1 * step})
    assert curve(tmp_path) == [(1, 1.0), (2, 0.5), (3, 0.3333)]
    assert curve(tmp_path, "train/learning_rate") == [(1, 0.1), (2, 0.2), (3, 0.3)]
    text = read(tmp_path).Tensors("config/text_summary")[0].tensor_proto.string_val[0].decode()
    assert json.loads(text) == CONFIG
    assert said == [f"tensorboard: tensorboard --logdir {tmp_path / 'tensorboard'}"]


def test_histograms_hold_every_weight_and_gradient(tmp_path, said):
    model = network()
    with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
        tracker.histograms(7, model)
    events = read(tmp_path)
    tags = {"weights/weight", "weights/bias", "gradients/weight", "gradients/bias"}
    assert set(events.Tags()["histograms"]) == tags
    (event,) = events.Histograms("gradients/weight")
    gradient = model.weight.grad.double()
    value = event.histogram_value
    assert event.step == 7
    assert value.num == sum(value.bucket) == gradient.numel()
    assert value.sum == pytest.approx(gradient.sum().item())
    assert (value.min, value.max) == pytest.approx((gradient.min().item(), gradient.max().item()))
    middle = np.searchsorted(np.sort(gradient.numpy().ravel()), value.bucket_limit[31])
    assert sum(value.bucket[:32]) == pytest.approx(middle, abs=1)


def test_of_a_large_tensor_a_fair_sample_counts():
    layer = torch.nn.Conv2d(256, 256, 3, bias=False)
    with torch.no_grad():  # nine positions in a kernel, nine values
        layer.weight.copy_(torch.arange(9.0).reshape(3, 3).expand_as(layer.weight))
    counts = histograms_of(layer)["weights/weight"].counts
    found = counts[counts > 0]
    assert len(found) == 9
    assert 30_000 < found.sum() <= SAMPLE
    assert found.max() - found.min() <= 1


def test_a_tensor_that_is_not_finite_has_no_histogram_and_a_constant_one_has(tmp_path, said):
    model = network()
    model.weight.grad[0, 0, 0, 0] = float("inf")
    model.bias.data[:] = float("nan")
    model.bias.grad[:] = 2.0
    with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
        tracker.histograms(1, model)
    assert set(read(tmp_path).Tags()["histograms"]) == {"weights/weight", "gradients/bias"}
    assert len(said) == 1


def test_an_example_shows_image_truth_and_prediction_side_by_side(tmp_path, said):
    spec = ModelSpec(channels=3, classes=class_infos([0, 1], ["ground", "disc"]), outputs=2, multiple=4)
    image = np.full((1200, 1000, 3), 100, np.uint8)
    truth, predicted = np.zeros((2, 1200, 1000), np.uint8)
    truth[:600], predicted[:, :500] = 1, 1
    example = Example.from_labels("car", image, truth, predicted, spec)
    with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
        tracker.examples(5, [example])
    (event,) = read(tmp_path).Images("examples/car")
    picture = np.asarray(Image.open(io.BytesIO(event.encoded_image_string)))
    height, width = picture.shape[:2]
    assert (event.step, height, width) == (5, 512, 3 * 427 + 8)
    left, middle, right = picture[:, :427], picture[:, 431:858], picture[:, 862:]
    grey = np.array([100, 100, 100])
    assert (left == grey).all()  # the disc is above in the truth, on the left in the prediction
    for part, tinted, plain in ((middle, (10, 400), (500, 10)), (right, (500, 10), (10, 400))):
        assert (part[tinted] != grey).any()
        assert (part[plain] == grey).all()


def test_scores_become_scalars_and_an_absent_class_none():
    spec = ModelSpec(channels=3, classes=class_infos([0, 1, 2], ["ground", "a/b", "never"]), outputs=3, multiple=4)
    labels = np.array([[0, 1], [1, 1]], np.uint8)
    scores = ConfusionMatrix(3).add(labels, np.array([[0, 1], [1, 0]], np.uint8)).summary(spec)
    values = score_scalars(scores)
    assert values == {
        "validation/dice": pytest.approx(0.8),
        "validation/iou": pytest.approx(2 / 3),
        "validation/pixel_accuracy": pytest.approx(0.75),
        "validation_dice/ground": pytest.approx(2 / 3),
        "validation_dice/a_b": pytest.approx(0.8),
    }


RECORD = """
    import sys, time
    from pathlib import Path
    from unet_edge.training.tracking import open_tracker
    tracker = open_tracker(("tensorboard",), Path(sys.argv[1]), {}, 0, print)
    for step in range(1, 21):
        tracker.scalars(step, {"train/loss": 100.0 + step})
    time.sleep(600)
"""


def test_a_killed_and_resumed_run_shows_one_curve(tmp_path, said):
    killed = subprocess.Popen([sys.executable, "-c", textwrap.dedent(RECORD), str(tmp_path)], stdout=subprocess.DEVNULL)
    try:
        deadline = time.monotonic() + 60
        while not ((tmp_path / "tensorboard").is_dir() and len(_steps(tmp_path)) == 20):
            assert time.monotonic() < deadline, "nothing was written while the process lived"
            time.sleep(0.1)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.wait()
    (first,) = (tmp_path / "tensorboard").iterdir()
    first.write_bytes(first.read_bytes()[:-5])  # killed in the middle of its last write
    for start, stop in ((12, 15), (14, 18)):
        with open_tracker(("tensorboard",), tmp_path, CONFIG, start, said.append) as tracker:
            for step in range(start + 1, stop + 1):
                tracker.scalars(step, {"train/loss": float(start)})
    before = [(step, 100.0 + step) for step in range(1, 13)]
    assert curve(tmp_path) == [*before, (13, 12.0), (14, 12.0), (15, 14.0), (16, 14.0), (17, 14.0), (18, 14.0)]


def test_a_new_run_in_an_old_folder_hides_the_old_one(tmp_path, said):
    for value in (1.0, 2.0):
        with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
            tracker.scalars(0 if value == 1.0 else 1, {"train/loss": value})
    assert curve(tmp_path) == [(1, 2.0)]


def _steps(folder):
    events = read(folder)
    return events.Scalars("train/loss") if "train/loss" in events.Tags()["scalars"] else []


def test_nothing_is_recorded_where_none_is_asked_for(tmp_path, said):
    with open_tracker(("none",), tmp_path, CONFIG, 0, said.append) as tracker:
        tracker.scalars(1, {"train/loss": 1.0})
        tracker.histograms(1, network())
    assert not list(tmp_path.iterdir())
    assert said == []


def test_an_unknown_tracker_is_named(tmp_path, said):
    with pytest.raises(InputError, match="no tracker 'tensorbord'; there are tensorboard, wandb, mlflow, none"):
        open_tracker(("tensorbord",), tmp_path, CONFIG, 0, said.append)
    assert set(TRACKERS) == {"tensorboard", "wandb", "mlflow", "none"}


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [("tensorboard", "tensorboard", "train"), ("wandb", "wandb", "wandb"), ("mlflow", "mlflow", "mlflow")],
)
def test_a_missing_package_is_said_once_with_its_extra(tmp_path, name, package, extra):
    script = f"""
        import sys
        from pathlib import Path
        sys.modules[{package!r}] = None
        from unet_edge.training.tracking import open_tracker
        tracker = open_tracker(({name!r},), Path(sys.argv[1]), {{}}, 0, print)
        for step in range(3):
            tracker.scalars(step, {{"train/loss": 1.0}})
        tracker.close()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)], capture_output=True, text=True, timeout=120
    )
    assert done.stderr == ""
    assert done.stdout.splitlines() == [
        f"{name} tracking is off (it needs {package}: pip install 'unet-edge[{extra}]'); training goes on",
        "done",
    ]


def test_a_full_disk_ends_tracking_with_one_line_and_nothing_else(tmp_path):
    script = """
        import resource, sys
        from pathlib import Path
        from unet_edge.training.tracking import open_tracker
        resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        tracker = open_tracker(("tensorboard",), Path(sys.argv[1]), {}, 0, print)
        for step in range(500):
            tracker.scalars(step, {"train/loss": 1.0})
        tracker.close()
        print("done")
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(script), str(tmp_path)],
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert done.stderr == ""
    off, end = (line for line in done.stdout.splitlines() if not line.startswith("tensorboard: "))
    assert off.startswith("tensorboard tracking is off (OSError: ")
    assert off.endswith("; training goes on")
    assert end == "done"
    assert curve(tmp_path)[:3] == [(0, 1.0), (1, 1.0), (2, 1.0)]


def test_a_folder_that_cannot_be_made_is_said_once(tmp_path, said):
    (tmp_path / "tensorboard").write_text("a file")
    with open_tracker(("tensorboard",), tmp_path, CONFIG, 0, said.append) as tracker:
        tracker.scalars(1, {"train/loss": 1.0})
    assert len(said) == 1
    assert said[0].startswith("tensorboard tracking is off (FileExistsError")


class Faulty:
    """A recorder that fails, or hangs, in one of its methods."""

    note = ""

    def __init__(self, method, fault):
        self.seen = []
        self.threads = set()
        for name in ("scalars", "histograms", "examples", "flush", "close"):
            setattr(self, name, fault if name == method else lambda *call, name=name: self.seen.append((name, *call)))


def fail(*_):
    raise ValueError("the server said no\nwith details")


def leave(*_):
    sys.exit(3)


@pytest.mark.parametrize("method", ["scalars", "histograms", "examples", "close"])
@pytest.mark.parametrize(("fault", "reason"), [(fail, "ValueError: the server said no"), (leave, "SystemExit: 3")])
def test_a_failing_call_switches_off_its_tracker_only(method, fault, reason):
    callers, lines = set(), []

    def say(line):
        callers.add(threading.current_thread())
        lines.append(line)

    good = Faulty("", fault)
    tracker = Tracker([Channel("bad", lambda: Faulty(method, fault)), Channel("good", lambda: good)], say)
    for step in (1, 2):
        tracker.scalars(step, {"train/loss": 1.0})
        tracker.histograms(step, network())
        tracker.examples(step, [])
    tracker.close()
    assert lines == [f"bad tracking is off ({reason}); training goes on"]
    assert callers == {threading.main_thread()}  # never in the middle of a progress bar
    calls = [call[0] for call in good.seen if call[0] != "flush"]
    assert calls == ["scalars", "histograms", "examples"] * 2 + ["close"]


def test_a_tracker_that_hangs_delays_nothing(monkeypatch, said):
    monkeypatch.setattr("unet_edge.training.tracking.tracker.OPEN_SECONDS", 0.01)
    monkeypatch.setattr("unet_edge.training.tracking.tracker.CLOSE_SECONDS", 0.1)
    forever = threading.Event()
    opening = Channel("opening", forever.wait)
    recording = Channel("recording", lambda: Faulty("scalars", lambda *_: forever.wait()))
    good = Faulty("", fail)
    tracker = Tracker([opening, recording, Channel("good", lambda: good)], said.append)
    try:
        tracker.scalars(0, {})
        tracker.close()
        assert said == [
            f"{name} tracking is off (it did not finish within 0.1 seconds); training goes on"
            for name in ("opening", "recording")
        ]
        assert good.seen[0] == ("scalars", 0, {})
    finally:
        forever.set()


def test_a_tracker_that_cannot_keep_up_is_switched_off(monkeypatch, said):
    monkeypatch.setattr("unet_edge.training.tracking.tracker.OPEN_SECONDS", 0.01)
    forever = threading.Event()
    tracker = Tracker([Channel("slow", forever.wait)], said.append)
    try:
        for step in range(WAITING + 5):
            tracker.scalars(step, {})
        assert said == [f"slow tracking is off (it is stuck, {WAITING} records wait for it); training goes on"]
    finally:
        forever.set()


def test_tracking_is_imported_without_torch_and_trackers():
    script = (
        "import sys; from unet_edge.training.tracking import TRACKERS; "
        "print(sorted({'torch', 'tensorboard', 'wandb', 'mlflow'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", script], capture_output=True, text=True).stdout.strip() == "[]"
