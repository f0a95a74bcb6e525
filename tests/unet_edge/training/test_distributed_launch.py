"""`unet-edge train --nproc N`: real launchers and workers, their errors, signals and restarts."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from tests.drawn import write_pairs
from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.resources import usable_cores
from unet_edge.training.launch import FAILURES, _environment

RUN = [
    "--scale", "1", "--base-channels", "4", "--depth", "2", "--bilinear", "--batch-size", "2", "--device", "cpu",
    "--seed", "4", "--deterministic", "--track", "none", "--workers", "0", "--nproc", "2",
    "--cache", "memory",
]  # fmt: skip


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Options that name two folders of drawn pairs."""
    images, masks = write_pairs(tmp_path_factory.mktemp("pairs"))
    return ["--images", str(images), "--masks", str(masks)]


@pytest.fixture(scope="module")
def undisturbed(data, tmp_path_factory):
    """A run of two processes that nothing happens to."""
    run = tmp_path_factory.mktemp("undisturbed") / "run"
    code, _, error = end(begin(*data, *RUN, "--epochs", "12", "--out", run))
    assert code == 0, error
    return run


def begin(*arguments):
    environment = {**os.environ, "OMP_NUM_THREADS": "1", "COLUMNS": "500"}
    return subprocess.Popen(
        [sys.executable, "-m", "unet_edge", "train", *map(str, arguments)],
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def end(process):
    out, error = process.communicate(timeout=300)
    return process.returncode, out, error


def workers_of(launcher: subprocess.Popen[str]) -> dict[int, int]:
    """Rank to process id of the launcher's children."""
    found = {}
    for text in Path(f"/proc/{launcher.pid}/task/{launcher.pid}/children").read_text().split():
        variables = Path(f"/proc/{text}/environ").read_bytes().split(b"\0")
        ranks = [variable for variable in variables if variable.startswith(b"RANK=")]
        if ranks:
            found[int(ranks[0][5:])] = int(text)
    return found


def is_alive(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def wait_for(condition, process=None):
    until = time.monotonic() + 240
    while not (value := condition()):
        assert time.monotonic() < until, "it never happened"
        assert process is None or process.poll() is None, process.communicate()
        time.sleep(0.05)
    return value


def steps_are_done(run: Path):
    """Whether a checkpoint after the first step is there, with steps still to come."""
    metrics = run / "metrics.jsonl"
    return lambda: metrics.exists() and metrics.read_text().count("\n") >= 2


def assert_same_weights(one: Path, other: Path):
    a, b = read_checkpoint(one).weights, read_checkpoint(other).weights
    assert a.keys() == b.keys()
    assert all(torch.equal(a[name], b[name]) for name in a)


def test_cores_are_shared_and_what_the_user_set_stays():
    cores = usable_cores()
    assert _environment(2, "f", {})["OMP_NUM_THREADS"] == str(max(1, cores // 2))
    assert _environment(999, "f", {})["OMP_NUM_THREADS"] == "1"
    own = _environment(2, "f", {"OMP_NUM_THREADS": "7", "GLOO_SOCKET_IFNAME": "eth0"})
    assert not own.keys() & {"OMP_NUM_THREADS", "GLOO_SOCKET_IFNAME"}
    assert own[FAILURES] == "f"


def test_an_error_of_the_processes_is_told_once_and_not_tried_again(data, tmp_path):
    """Both processes learn of it; three restarts would not help."""
    (tmp_path / "last.pth").touch()
    code, out, error = end(begin(*data, *RUN, "--out", tmp_path, "--max-restarts", "3"))
    assert (code, out) == (1, "")
    assert error.startswith(f"Error: {tmp_path} already holds a run")
    assert len(error.splitlines()) == 1


@pytest.mark.slow
def test_a_killed_process_is_replaced_and_the_weights_are_those_of_an_undisturbed_run(data, tmp_path, undisturbed):
    killed = tmp_path / "killed"
    process = begin(*data, *RUN, "--epochs", "12", "--out", killed, "--max-restarts", "1")
    wait_for(steps_are_done(killed), process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    code, out, error = end(process)
    assert code == 0, error
    assert out.startswith("best validation Dice")
    for name in ("last.pth", "best.pth"):
        assert_same_weights(undisturbed / name, killed / name)


@pytest.mark.slow
def test_a_killed_process_without_restarts_ends_the_run_with_one_line(data, tmp_path):
    process = begin(*data, *RUN, "--epochs", "500", "--out", tmp_path / "run")
    wait_for(steps_are_done(tmp_path / "run"), process)
    os.kill(workers_of(process)[1], signal.SIGKILL)
    code, _, error = end(process)
    assert code == 128 + signal.SIGKILL
    (line,) = [line for line in error.splitlines() if line.startswith("Error")]
    assert line.startswith("Error: process 1 of 0..1 was ended by SIGKILL")
    assert "--resume" in line
    assert error.endswith(line + "\n")
    assert "Traceback" not in error


@pytest.mark.slow
def test_ctrl_c_saves_and_says_once_how_to_go_on(data, tmp_path, undisturbed):
    run = tmp_path / "run"
    process = begin(*data, *RUN, "--epochs", "12", "--out", run)
    wait_for(steps_are_done(run), process)
    process.send_signal(signal.SIGINT)
    code, _, error = end(process)
    assert code == 1
    (line,) = [line for line in error.splitlines() if line.startswith("Error")]
    assert "interrupted in epoch" in line
    assert line.endswith(f"--resume {run} --nproc 2")
    assert error.endswith(line + "\n")
    code, _, error = end(begin("--resume", run, "--device", "cpu", "--nproc", "2"))
    assert code == 0, error
    assert_same_weights(undisturbed / "last.pth", run / "last.pth")


@pytest.mark.slow
def test_processes_end_with_their_launcher(data, tmp_path):
    process = begin(*data, *RUN, "--epochs", "500", "--out", tmp_path / "run")
    wait_for(steps_are_done(tmp_path / "run"), process)
    workers = workers_of(process)
    assert sorted(workers) == [0, 1]
    process.kill()
    _, _, error = end(process)  # returns when nobody holds its output any more
    wait_for(lambda: not any(is_alive(pid) for pid in workers.values()))
    assert "interrupted in epoch" in error
