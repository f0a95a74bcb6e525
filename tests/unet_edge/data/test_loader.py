"""Workers change nothing, end in order, and say in one line what went wrong."""

import os
import pickle
import resource
import signal
import subprocess
import sys
import time

import numpy as np
import pytest
import torch

from unet_edge.checkpoint import class_infos
from unet_edge.data import loader as loader_module
from unet_edge.data.batches import EpochBatches
from unet_edge.data.loader import default_workers, make_loader
from unet_edge.data.pairing import pair_files
from unet_edge.data.resources import free_memory, local_processes, usable_cores
from unet_edge.training.config import TrainConfig
from unet_edge_runtime.errors import InputError, TrainingError
from unet_edge_runtime.spec import ModelSpec

SPEC = ModelSpec(channels=3, classes=class_infos([0, 100, 255]), outputs=3, multiple=16)
CPU = torch.device("cpu")
linux = pytest.mark.skipif(sys.platform != "linux", reason="signals and control groups of Linux")


def make(folders, on_worker=None, **changes):
    pairs, _ = pair_files(*folders)
    config = TrainConfig(**{"batch_size": 5, "augment": "strong", "flip": "both", "seed": 3, **changes})
    batches = EpochBatches(len(pairs), config.batch_size, config.seed)
    return make_loader(pairs, SPEC, config, CPU, batches, on_worker), batches


def epoch_of(loading, epoch, start=0):
    loader, batches = loading
    batches.epoch, batches.start = epoch, start
    return list(loader)


def assert_same(batches, others):
    assert len(batches) == len(others)
    for ours, theirs in zip(batches, others, strict=True):
        assert all(torch.equal(a, b) for a, b in zip(ours, theirs, strict=True))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_workers_and_caches_change_nothing(pairs_folder, cache):
    expected = make(pairs_folder, cache="none")
    for workers in (0, 2):
        loading = make(pairs_folder, workers=workers, cache=cache)
        for epoch in (1, 2, 1):
            assert_same(epoch_of(loading, epoch), epoch_of(expected, epoch))


@pytest.mark.parametrize("cache", ["memory", "disk", "none"])
def test_what_a_spawned_worker_gets_loads_the_same(pairs_folder, cache):
    dataset = make(pairs_folder, cache=cache)[0].dataset
    copy = pickle.loads(pickle.dumps(dataset))
    for key in [(index, 1, True) for index in range(12)] * 2:
        assert all(np.array_equal(a, b) for a, b in zip(dataset[key], copy[key], strict=True))


@pytest.mark.parametrize("workers", [0, 2])
def test_an_epoch_left_early_and_entered_again_in_the_middle_goes_on(pairs_folder, workers):
    loading = make(pairs_folder, workers=workers)
    whole = epoch_of(loading, 2)
    loading[1].start = 0
    for _ in loading[0]:
        break
    assert_same(epoch_of(loading, 2, start=1), whole[1:])


def test_loading_draws_nothing_from_the_global_generator(pairs_folder):
    before = torch.random.get_rng_state()
    epoch_of(make(pairs_folder, workers=1), 1)
    assert torch.equal(torch.random.get_rng_state(), before)


def test_crops_give_batches_of_one_size(pairs_folder):
    for images, labels in epoch_of(make(pairs_folder, crop=(32, 32)), 1):
        assert images.shape[1:] == (3, 32, 32)
        assert labels.shape[1:] == (32, 32)
        assert images.dtype == torch.float32
        assert labels.dtype == torch.uint8


@pytest.mark.parametrize("workers", [0, 1])
def test_a_file_that_went_bad_is_named_in_one_line(pairs_folder, workers):
    loading = make(pairs_folder, workers=workers)
    (pairs_folder[0] / "photo 07.png").write_bytes(b"no picture")
    with pytest.raises(InputError, match=r"photo 07\.png") as caught:
        epoch_of(loading, 1)
    assert "\n" not in str(caught.value)


@linux
def test_a_killed_worker_is_reported_in_one_line(pairs_folder):
    def kill(worker):
        os.kill(os.getpid(), signal.SIGKILL)

    # torch raises from a signal handler: wherever this process happens to be, inside of the loader or not.
    with pytest.raises((TrainingError, RuntimeError)) as caught:
        epoch_of(make(pairs_folder, kill, workers=2), 1)
    told = loader_module.explained(caught.value)
    assert isinstance(told, TrainingError)
    assert "--workers" in str(told)
    assert "\n" not in str(told)


@linux
def test_too_little_shared_memory_is_reported_in_one_line(pairs_folder):
    def shrink(worker):
        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))  # holds for shared memory too

    with pytest.raises(TrainingError, match="shared memory") as caught:
        epoch_of(make(pairs_folder, shrink, workers=1), 1)
    assert "\n" not in str(caught.value)


def test_a_mistake_of_ours_in_a_worker_keeps_its_traceback(pairs_folder):
    def stumble(worker):
        raise KeyError("a mistake")

    with pytest.raises(KeyError, match="stumble"):
        epoch_of(make(pairs_folder, stumble, workers=1), 1)


SCRIPT = """
import signal, sys, time
from pathlib import Path
sys.path.insert(0, ".")
from tests.unet_edge.data.test_loader import make
for number in (signal.SIGINT, signal.SIGTERM):
    signal.signal(number, lambda *caught: None)
loader, batches = make((Path(sys.argv[1]), Path(sys.argv[2])), workers=2, batch_size=1, augment="none")
for number, batch in enumerate(loader):
    if number == 1:
        print(*[worker.pid for worker in loader._iterator._workers], flush=True)
        sys.stdin.readline()
print("all", number + 1)
"""


@pytest.fixture
def running(pairs_folder):
    """A process that loads, in a group of its own, and its two workers' numbers."""
    command = [sys.executable, "-c", SCRIPT, *map(str, pairs_folder)]
    pipes = {"stdin": subprocess.PIPE, "stdout": subprocess.PIPE}
    with subprocess.Popen(command, text=True, start_new_session=True, **pipes) as parent:
        workers = [int(word) for word in parent.stdout.readline().split()]
        assert len(workers) == 2
        yield parent, workers
        parent.kill()


@linux
def test_signals_to_all_processes_of_a_group_do_not_end_the_workers(running):
    parent, workers = running
    for number in (signal.SIGINT, signal.SIGTERM):
        os.killpg(parent.pid, number)
        time.sleep(0.3)
    assert all(map(is_running, workers))
    assert parent.communicate("\n", timeout=60)[0].split() == ["all", "12"]
    assert not any(map(is_running, workers))


@linux
def test_workers_end_with_a_parent_that_is_killed(running):
    parent, workers = running
    parent.kill()
    deadline = time.monotonic() + 30
    while any(map(is_running, workers)):
        assert time.monotonic() < deadline
        time.sleep(0.1)


def is_running(pid):
    try:
        with open(f"/proc/{pid}/stat") as stream:  # noqa: PTH123 - the file may vanish at any moment
            return stream.read().rsplit(")", 1)[1].split()[0] != "Z"
    except OSError:
        return False


def test_workers_have_one_thread(pairs_folder):
    def check(worker):
        assert torch.get_num_threads() == 1

    assert len(epoch_of(make(pairs_folder, check, workers=1), 1)) == 3


@pytest.mark.parametrize(
    ("device", "cores", "processes", "workers"),
    [("cpu", 16, 1, 0), ("cuda", 1, 1, 1), ("cuda", 4, 1, 3), ("cuda", 64, 1, 8), ("cuda", 16, 4, 3), ("mps", 8, 1, 2)],
)
def test_default_workers_leave_a_core(monkeypatch, device, cores, processes, workers):
    monkeypatch.setattr(loader_module, "usable_cores", lambda: cores)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", str(processes))
    assert default_workers(torch.device(device)) == workers


@pytest.mark.parametrize(("text", "expected"), [(None, 1), ("", 1), ("4", 4), ("0", 1), ("-2", 1), ("many", 1)])
def test_processes_on_this_machine(monkeypatch, text, expected):
    monkeypatch.delenv("LOCAL_WORLD_SIZE", raising=False)
    if text is not None:
        monkeypatch.setenv("LOCAL_WORLD_SIZE", text)
    assert local_processes() == expected


@pytest.fixture
def system(tmp_path, monkeypatch):
    """system(group line, files): folders that look like /sys/fs/cgroup and /proc of a machine with 32 cores."""

    def write(line, files):
        cgroups, proc = tmp_path / "cgroup", tmp_path / "proc"
        for name, text in {**files, "../proc/self/cgroup": line, "../proc/meminfo": "MemAvailable: 1000 kB\n"}.items():
            path = cgroups / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path = path.resolve()
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text)
        return cgroups, proc

    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: set(range(32)), raising=False)
    return write


@pytest.mark.parametrize(
    ("line", "files", "cores"),
    [
        ("0::/", {}, 32),
        ("0::/", {"cpu.max": "max 100000"}, 32),
        ("0::/", {"cpu.max": "200000 100000"}, 2),
        ("0::/", {"cpu.max": "250000 100000"}, 3),
        ("0::/", {"cpu.max": "5000 100000"}, 1),
        ("0::/", {"cpu.max": "nonsense"}, 32),
        ("0::/slice/job", {"cpu.max": "max 100000", "slice/cpu.max": "400000 100000", "slice/job/cpu.max": "max 1"}, 4),
        ("4:cpu,cpuacct:/docker/x", {"cpu/cpu.cfs_quota_us": "300000", "cpu/cpu.cfs_period_us": "100000"}, 3),
        ("4:cpu,cpuacct:/docker/x", {"cpu/cpu.cfs_quota_us": "-1", "cpu/cpu.cfs_period_us": "100000"}, 32),
        ("4:cpu:/a", {"cpu/a/cpu.cfs_quota_us": "700000", "cpu/a/cpu.cfs_period_us": "100000"}, 7),
    ],
)
def test_cores_honour_affinity_and_the_limits_of_containers(system, line, files, cores):
    assert usable_cores(*system(line, files)) == cores


@pytest.mark.parametrize(
    ("line", "files", "kilobytes"),
    [
        ("0::/", {}, 1000),
        ("0::/", {"memory.max": "max", "memory.current": "5000"}, 1000),
        ("0::/", {"memory.max": "409600", "memory.current": "102400"}, 300),
        (
            "0::/",
            {"memory.max": "409600", "memory.current": "409600", "memory.stat": "anon 1\ninactive_file 51200"},
            50,
        ),
        ("0::/", {"memory.max": "102400", "memory.current": "204800"}, 0),
        ("9:memory:/x", {"memory/memory.limit_in_bytes": "204800", "memory/memory.usage_in_bytes": "0"}, 200),
        (
            "9:memory:/x",
            {
                "memory/memory.limit_in_bytes": "409600",
                "memory/memory.usage_in_bytes": "409600",
                "memory/memory.stat": "inactive_file 0\ntotal_inactive_file 102400",
            },
            100,
        ),
        (
            "9:memory:/x",
            {"memory/memory.limit_in_bytes": "9223372036854771712", "memory/memory.usage_in_bytes": "0"},
            1000,
        ),
    ],
)
def test_free_memory_honours_the_limits_of_containers(system, line, files, kilobytes):
    assert free_memory(*system(line, files)) == kilobytes * 1024


def test_free_memory_of_this_machine_is_plausible():
    assert 1 << 20 < free_memory() < 1 << 50
    assert np.iinfo(int).max > usable_cores() >= 1
