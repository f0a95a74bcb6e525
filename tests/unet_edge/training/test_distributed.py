"""Several processes do what one does: gradients, batch norm, scores, and errors that end in one line."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from datetime import timedelta
from pathlib import Path

import numpy as np
import pytest
import torch

from tests.drawn import write_pairs
from unet_edge.checkpoint import read_checkpoint
from unet_edge.training.distributed import PeerLostError, World, current
from unet_edge.training.run_folder import RunFolder
from unet_edge_runtime.errors import BackendError, InputError

from . import distributed_worker

WORKER = Path(distributed_worker.__file__)
TASKS = ("frozen", "frozen_real_loss", "sync_norm", "sync_norm_checkpointed", "collectives")


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("localhost", 0))
        return server.getsockname()[1]


def start(tasks, size, folder, **environment):
    """Real processes in torchrun's environment; gives each one's arrays, by task."""
    common = {"MASTER_ADDR": "localhost", "MASTER_PORT": str(free_port()), "WORLD_SIZE": str(size), **environment}
    processes = [
        subprocess.Popen(
            [sys.executable, str(WORKER), ",".join(tasks), str(folder)],
            env={**os.environ, "OMP_NUM_THREADS": "1", **common, "RANK": str(rank), "LOCAL_RANK": str(rank)},
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(size)
    ]
    try:
        errors = [process.communicate(timeout=240)[1] for process in processes]
    finally:
        for process in processes:
            process.kill()
    return errors, {task: [_load(folder / f"{task}-{rank}.npz") for rank in range(size)] for task in tasks}


def _load(path):
    return dict(np.load(path, allow_pickle=False)) if path.exists() else None


@pytest.fixture(scope="module")
def two(tmp_path_factory):
    """What two processes found, by task."""
    errors, found = start(TASKS, 2, tmp_path_factory.mktemp("two"))
    assert all(found[task][0] is not None for task in TASKS), errors
    return found


@pytest.mark.parametrize(
    ("task", "tolerance"),
    [("frozen", 1e-12), ("sync_norm", 1e-12), ("sync_norm_checkpointed", 1e-12), ("frozen_real_loss", 1e-5)],
)
def test_two_processes_have_the_gradients_of_one_with_the_joined_batch(two, task, tolerance):
    """The loss is no mean over images and the shares are uneven, so no mean of gradients would do.

    In float64; the project's own losses compute in fp32.
    """
    if "sync" in task:
        alone = distributed_worker.step(World(), False, "none", distributed_worker.ratio_loss)
        assert not np.allclose(alone["loss"], two[task][0]["loss"], rtol=1e-6)  # frozen and live norms differ
        expected = one_process_with_live_norms()
    else:
        expected = getattr(distributed_worker, task)(World())
    for found in two[task]:
        assert found.keys() == expected.keys()  # the state dict has the keys of plain batch norm
        for name in expected:
            if name != "logits":
                scale = max(1e-3, np.abs(expected[name]).max())
                assert np.abs(found[name] - expected[name]).max() <= tolerance * scale, name
    logits = np.concatenate([found["logits"] for found in two[task]])
    np.testing.assert_allclose(logits, expected["logits"], rtol=0, atol=1e-12)


def one_process_with_live_norms():
    """`sync_norm` in a world of one: nothing is wrapped, and the norms are torch's own."""
    found = distributed_worker.step(World(), True, "none", distributed_worker.ratio_loss)
    assert np.count_nonzero(found["state inc.double_conv.1.running_mean"])
    return found


def test_integers_are_summed_exactly_and_arguments_stay(two):
    for rank, found in enumerate(two["collectives"]):
        assert found["sum"].tolist() == [2**61 + 1, -14]
        assert found["argument"].tolist() == [2**60 + rank, -7]


def test_what_one_process_wants_all_know(two):
    for found in two["collectives"]:
        assert found["any"].tolist() == [True, False]


def test_what_the_writer_makes_and_raises_arrives_everywhere(two):
    for found in two["collectives"]:
        assert str(found["made"]) == str({"made by": 0, "path": Path("x")})
        assert str(found["message"]) == "the data set has 1 problem:\n  - from 0"
        assert found["shared"].tolist() == [1, 1]


def test_what_all_bring_is_the_writers(two):
    assert [str(found["gathered"]) for found in two["collectives"]] == ["['by 0', 'by 1']", "[]"]


def test_sharded_evaluation_is_that_of_one_process(real_data, small_checkpoint, tmp_path):
    """Three processes share five real images, then two."""
    places = {"images": tmp_path / "images", "masks": tmp_path / "masks"}
    for kind, folder in places.items():
        folder.mkdir()
        for path in sorted((real_data / "dsb2018" / kind).iterdir())[:5]:
            (folder / path.name).symlink_to(path)
    environment = {"IMAGES": str(places["images"]), "MASKS": str(places["masks"]), "CHECKPOINT": str(small_checkpoint)}
    errors, found = start(["scores"], 3, tmp_path, **environment)
    alone_errors, alone = start(["scores"], 1, tmp_path, **environment)
    (expected,) = alone["scores"]
    assert expected is not None, alone_errors
    assert expected["matrix 5"].sum() > 0
    for count in (5, 2):
        for rank, share in enumerate(found["scores"]):
            assert share is not None, errors
            assert share[f"matrix {count}"].tolist() == expected[f"matrix {count}"].tolist()
            assert share[f"seen {count}"].tolist() == expected[f"seen {count}"].tolist()[rank::3]


@pytest.mark.slow
@pytest.mark.parametrize(
    ("task", "tolerance", "dice_tolerance"),
    [("run_frozen", 1e-6, 1e-3), ("run_synchronised", 5e-4, 1e-2), ("run_in_parts", 1e-6, 1e-3)],
)
def test_a_run_of_two_processes_has_the_course_of_one_with_twice_the_batch(
    tmp_path, small_checkpoint, task, tolerance, dice_tolerance
):
    """Losses, scores and weights; with ordinary batch norm, which sees half the batch, they would differ.

    Batch norm on a batch's statistics makes a convolution's scale matter little, so its weights drift with rounding,
    by how much depends on the processor, and the few pixels that are hardly decided follow them.
    """
    images, masks = write_pairs(tmp_path)
    environment = {"IMAGES": str(images), "MASKS": str(masks), "CHECKPOINT": str(small_checkpoint)}
    for size in (1, 2):
        errors, _ = start([task], size, tmp_path, **environment)
        assert (tmp_path / f"{task}-{size}" / "best.pth").exists(), errors
    one, two = (RunFolder(tmp_path / f"{task}-{size}") for size in (1, 2))
    losses, dice = (
        [[r[key] for r in run.read_metrics() if r["event"] == kind] for run in (one, two)]
        for kind, key in (("train", "loss"), ("validation", "dice"))
    )
    assert losses[0][3] < 0.95 * losses[0][0]  # there is a course
    assert losses[1] == pytest.approx(losses[0], rel=1e-5)
    assert dice[1] == pytest.approx(dice[0], rel=dice_tolerance)
    weights = [read_checkpoint(run.last).weights for run in (one, two)]
    for name, expected in weights[0].items():
        assert torch.allclose(weights[1][name].double(), expected.double(), rtol=0, atol=tolerance), name


def test_synchronised_norms_meet_in_uneven_parts(tmp_path, small_checkpoint):
    images, masks = write_pairs(tmp_path)
    environment = {"IMAGES": str(images), "MASKS": str(masks), "CHECKPOINT": str(small_checkpoint)}
    errors, _ = start(["run_synchronised_in_parts"], 2, tmp_path, **environment)
    run = RunFolder(tmp_path / "run_synchronised_in_parts-2")
    assert [record["epoch"] for record in run.read_metrics() if record["event"] == "train"] == [1, 2, 3, 4], errors


def test_a_process_that_loses_another_one_says_so_in_one_line(tmp_path):
    start(["lost"], 2, tmp_path)
    message = (tmp_path / "lost-0.txt").read_text()
    assert message.startswith("PeerLostError: process 0 of 0..1 lost the others")
    assert "\n" not in message
    assert "--resume" in message


def test_without_torchrun_the_world_is_one(monkeypatch):
    for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"):
        monkeypatch.delenv(name, raising=False)
    world = current()
    assert world == World(0, 1, 0)
    assert world.is_writer
    with world.join(torch.device("cpu")):
        assert world.any(True)
        assert world.from_writer(lambda: 3) == 3
        assert world.gather(5) == [5]
        assert world.all_sum(np.array([4]))[0] == 4
        assert not torch.distributed.is_initialized()


def test_torchruns_environment_is_read(monkeypatch):
    set_world(monkeypatch, "5", "8", "1")
    monkeypatch.setenv("TORCHELASTIC_RESTART_COUNT", "2")
    assert current() == World(5, 8, 1, restarts=2)
    assert not current().is_writer


@pytest.mark.parametrize(
    ("rank", "size", "local"), [("2", "2", "0"), ("-1", "2", "0"), ("x", "2", "0"), ("0", "2", None), ("0", "2", "1")]
)
def test_an_environment_that_fits_no_process_is_refused(monkeypatch, rank, size, local):
    set_world(monkeypatch, rank, size, local)
    with pytest.raises(InputError, match=r"^the environment has RANK=.*torchrun"):
        current()


def set_world(monkeypatch, rank, size, local):
    for name, value in (("RANK", rank), ("WORLD_SIZE", size), ("LOCAL_RANK", local)):
        if value is None:
            monkeypatch.delenv(name, raising=False)
        else:
            monkeypatch.setenv(name, value)


def test_nobody_to_meet_is_one_line(monkeypatch):
    monkeypatch.setenv("MASTER_ADDR", "localhost")
    monkeypatch.setenv("MASTER_PORT", str(free_port()))
    with pytest.raises(PeerLostError, match=r"^process 1 of 0\.\.1 cannot meet the others at localhost:\d+ ") as caught:
        World(1, 2, 1).join(torch.device("cpu"), timedelta(seconds=1))
    assert "\n" not in str(caught.value)


def test_each_process_needs_its_own_gpu(monkeypatch):
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert World(5, 8, 1).device(torch.device("cuda")) == torch.device("cuda:1")
    with pytest.raises(BackendError, match=r"process 3 of this machine has no GPU: there are 2; start that many"):
        World(2, 4, 2).device(torch.device("cuda"))
    with pytest.raises(BackendError, match="--device cpu"):
        World(0, 2, 0).device(torch.device("mps"))
    assert World().device(torch.device("mps")) == torch.device("mps")
