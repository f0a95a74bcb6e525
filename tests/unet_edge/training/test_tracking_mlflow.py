"""MLflow, with the real package and its store of files."""

from __future__ import annotations

import os
import shutil
import signal
import socket
import subprocess
import sys
import textwrap
import time

import numpy as np
import pytest

from unet_edge.training.tracking import Example, open_tracker

mlflow = pytest.importorskip("mlflow", reason="the extra [mlflow] is not installed")

RECORD = """
    import sys, time
    from pathlib import Path
    from unet_edge.training.tracking import open_tracker
    tracker = open_tracker(("mlflow",), Path(sys.argv[1]), {}, 0, print)
    for step in range(1, 21):
        tracker.scalars(step, {"train/loss": float(step)})
    time.sleep(600)
"""


@pytest.fixture
def said(monkeypatch):
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    monkeypatch.delenv("MLFLOW_EXPERIMENT_NAME", raising=False)
    return []


def client(folder):
    return mlflow.MlflowClient(tracking_uri=(folder / "mlruns").as_uri())


def runs(folder):
    found = client(folder)
    return found.search_runs([experiment.experiment_id for experiment in found.search_experiments()])


def test_parameters_scalars_and_examples_are_in_the_run_folder(tmp_path, said):
    picture = np.full((20, 30, 3), 7, np.uint8)
    config = {"train": {"epochs": 3, "crop": None}, "data": {"names": "x" * 900}}
    with open_tracker(("mlflow",), tmp_path / "cars", config, 0, said.append) as tracker:
        tracker.scalars(1, {"train/loss": 0.5})
        tracker.scalars(2, {"train/loss": 0.25, "validation_dice/left: side": 0.75})
        tracker.examples(2, [Example("a?b", picture, picture, picture)])
    (run,) = runs(tmp_path / "cars")
    assert run.info.run_name == "cars"
    assert run.info.status == "FINISHED"
    assert run.data.params == {"train.epochs": "3", "train.crop": "None", "data.names": "x" * 500}
    assert run.data.metrics == {"train/loss": 0.25, "validation_dice/left_ side": 0.75}
    assert list((tmp_path / "cars" / "mlruns").rglob("examples*a_b*step*2*.png"))
    assert said == [f"mlflow: run {run.info.run_id} in {(tmp_path / 'cars' / 'mlruns').as_uri()}"]


def test_a_killed_run_goes_on_as_the_same_run_and_no_step_is_doubled(tmp_path, said):
    killed = subprocess.Popen([sys.executable, "-c", textwrap.dedent(RECORD), str(tmp_path)], stdout=subprocess.PIPE)
    try:
        deadline = time.monotonic() + 120
        while not any("\n20 " in f"\n{_reversed(path)}" for path in tmp_path.rglob("metrics/train/loss")):
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        killed.communicate()
    with open_tracker(("mlflow",), tmp_path, {"another": 1}, 12, said.append) as tracker:
        for step in range(13, 26):
            tracker.scalars(step, {"train/loss": 100.0 + step, "validation/dice": 0.5})
    (run,) = runs(tmp_path)
    history = [(m.step, m.value) for m in client(tmp_path).get_metric_history(run.info.run_id, "train/loss")]
    assert history == [(s, float(s)) for s in range(1, 21)] + [(s, 100.0 + s) for s in range(21, 26)]
    dice = client(tmp_path).get_metric_history(run.info.run_id, "validation/dice")
    assert [metric.step for metric in dice] == list(range(13, 26))
    assert len(said) == 1


def _reversed(path):
    """Lines with the step first."""
    return "\n".join(" ".join(reversed(line.split())) + " " for line in path.read_text().splitlines())


def test_a_run_that_is_gone_from_the_store_starts_anew(tmp_path, said):
    for start in (0, 5):
        with open_tracker(("mlflow",), tmp_path, {}, start, said.append) as tracker:
            tracker.scalars(start + 1, {"train/loss": 1.0})
        if not start:
            shutil.rmtree(next(tmp_path.rglob("metrics")).parent)
    (run,) = runs(tmp_path)
    assert [m.step for m in client(tmp_path).get_metric_history(run.info.run_id, "train/loss")] == [6]


def test_a_server_that_does_not_answer_is_said_once(tmp_path, said, monkeypatch):
    with socket.socket() as closed:
        closed.bind(("127.0.0.1", 0))
        port = closed.getsockname()[1]
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"http://127.0.0.1:{port}")
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    with open_tracker(("mlflow",), tmp_path, {}, 0, said.append) as tracker:
        for step in range(3):
            tracker.scalars(step, {"train/loss": 1.0})
    assert len(said) == 1
    assert said[0].startswith("mlflow tracking is off (MlflowException: ")
    assert "\n" not in said[0]
