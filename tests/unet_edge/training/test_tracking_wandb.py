"""Weights & Biases, with the real package, offline: nothing here needs an account or a network."""

from __future__ import annotations

import json
import os
import signal
import struct
import subprocess
import sys
import textwrap
import time

import pytest

pytest.importorskip("wandb", reason="the extra [wandb] is not installed")

BLOCK = 32768  # bytes: the file is a LevelDB log, whose records are split at block borders

RECORD = """
    import sys, time
    from pathlib import Path
    import numpy as np
    from unet_edge.training.tracking import Example, open_tracker
    folder, first, last = Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])
    tracker = open_tracker(("wandb",), folder, {"train": {"epochs": 3}}, first, print)
    for step in range(first + 1, last + 1):
        tracker.scalars(step, {"train/loss": 100.0 * first + step})
    picture = np.zeros((8, 8, 3), np.uint8)
    tracker.examples(last, [Example("car", picture, picture, picture)])
    if "wait" in sys.argv:
        time.sleep(600)
    tracker.close()
"""


@pytest.fixture
def environment(tmp_path):
    """Of somebody who is not logged in."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("WANDB_")}
    home = tmp_path / "home"
    home.mkdir()
    return {**kept, "HOME": str(home), "XDG_CONFIG_HOME": str(home), "NETRC": str(home / "netrc")}


def command(folder, *arguments):
    return [sys.executable, "-c", textwrap.dedent(RECORD), str(folder), *map(str, arguments)]


def records(path):
    """The records of a .wandb file, as far as it is complete."""
    from wandb.proto.wandb_internal_pb2 import Record

    data, position, parts = path.read_bytes(), 7, []
    while position + 7 <= len(data):
        if BLOCK - position % BLOCK < 7:
            position += BLOCK - position % BLOCK
            continue
        _, length, kind = struct.unpack_from("<IHB", data, position)
        parts.append(data[position + 7 : position + 7 + length])
        position += 7 + length
        if kind in (1, 4):  # whole, or the last part
            yield Record.FromString(b"".join(parts))
            parts = []


def history(folder):
    """(step, loss) of all sessions of a run, in the order in which `wandb sync` uploads them."""
    found = []
    for path in sorted(folder.glob("wandb/offline-run-*/*.wandb"), key=lambda path: path.stat().st_mtime):
        for entry in records(path):
            row = {"/".join(item.nested_key) or item.key: item.value_json for item in entry.history.item}
            if "train/loss" in row:
                found.append((entry.history.step.num, json.loads(row["train/loss"])))
    return found


@pytest.mark.slow
def test_a_killed_run_goes_on_as_the_same_run_and_no_step_is_doubled(tmp_path, environment):
    folder = tmp_path / "cars"
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.STDOUT, "text": True}
    killed = subprocess.Popen(command(folder, 0, 20, "wait"), env=environment, **pipes)
    try:
        deadline = time.monotonic() + 120
        while len(history(folder)) < 19:  # a step is written when the next one begins
            assert time.monotonic() < deadline
            time.sleep(0.2)
    finally:
        os.kill(killed.pid, signal.SIGKILL)
        said = killed.communicate()[0]
    run_id = json.loads((folder / "tracking.json").read_text())["wandb"]["id"]
    assert said == f"wandb: offline; upload it with: wandb sync {folder}/wandb/offline-run-*-{run_id}\n"
    assert subprocess.run(command(folder, 12, 25), env=environment, timeout=120, **pipes).stdout == said
    assert json.loads((folder / "tracking.json").read_text()) == {"wandb": {"id": run_id}}
    steps = history(folder)
    assert [step for step, _ in steps] == list(range(1, 26))
    assert all(loss == (step if step < 20 else 1200 + step) for step, loss in steps if step != 20)
    assert all(path.name.endswith(run_id) for path in folder.glob("wandb/offline-run-*"))
    assert list(folder.glob("wandb/offline-run-*/files/media/images/examples/car*.png"))


@pytest.mark.slow
def test_a_server_that_does_not_answer_leaves_it_offline(tmp_path, environment):
    folder = tmp_path / "cars"
    variables = {"WANDB_API_KEY": "a" * 40, "WANDB_BASE_URL": "http://127.0.0.1:9", "WANDB_INIT_TIMEOUT": "2"}
    done = subprocess.run(
        command(folder, 0, 3), env={**environment, **variables}, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.startswith("wandb: offline; upload it with: wandb sync ")
    assert [step for step, _ in history(folder)] == [1, 2, 3]


@pytest.mark.parametrize(
    ("settings", "variables", "mode"),
    [
        ({}, {}, "offline"),
        ({"mode": "online"}, {}, "offline"),
        ({"api_key": "a" * 40}, {}, "online"),
        ({}, {"WANDB_API_KEY": "a" * 40}, "online"),
        ({"mode": "offline", "api_key": "a" * 40}, {}, "offline"),
        ({"mode": "disabled"}, {"WANDB_API_KEY": "a" * 40}, "disabled"),
    ],
)
def test_it_is_online_only_with_a_login(monkeypatch, environment, settings, variables, mode):
    import wandb

    from unet_edge.training.tracking.wandb_run import _mode

    for name in [key for key in os.environ if key.startswith("WANDB_")]:
        monkeypatch.delenv(name)
    for name, value in {**environment, **variables}.items():
        monkeypatch.setenv(name, value)
    assert _mode(wandb.Settings(**settings)) == mode


def test_a_login_in_netrc_counts_for_its_host_only(monkeypatch, tmp_path):
    import wandb

    from unet_edge.training.tracking.wandb_run import _mode

    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    file = tmp_path / "netrc"
    monkeypatch.setenv("NETRC", str(file))
    file.write_text(f"machine own.example login user password {'a' * 40}\n")
    file.chmod(0o600)
    assert _mode(wandb.Settings(base_url="https://own.example")) == "online"
    assert _mode(wandb.Settings(base_url="https://another.example")) == "offline"
    file.write_text("machine ???\nnonsense")
    assert _mode(wandb.Settings(base_url="https://own.example")) == "offline"


@pytest.mark.slow
def test_a_run_of_that_name_stays_in_its_folder(tmp_path, environment):
    """Whoever made the folder may have written any name into it."""
    folder = tmp_path / "cars"
    folder.mkdir()
    (folder / "tracking.json").write_text(json.dumps({"wandb": {"id": "../../elsewhere"}}))
    subprocess.run(command(folder, 0, 2), env=environment, timeout=120, check=True)
    run_id = json.loads((folder / "tracking.json").read_text())["wandb"]["id"]
    assert run_id.isalnum()
    assert not list(tmp_path.glob("*elsewhere*"))
