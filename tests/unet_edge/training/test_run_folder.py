import pytest

from unet_edge.training.run_folder import RunFolder


@pytest.fixture
def run(tmp_path):
    run = RunFolder(tmp_path)
    for step in (1, 2, 3):
        run.append({"event": "train", "step": step})
    return run


def test_settling_drops_records_that_the_checkpoint_does_not_know(run):
    before = run.metrics.read_bytes().splitlines(keepends=True)
    run.settle(best_step=0, records=2)
    assert run.metrics.read_bytes() == b"".join(before[:2])


def test_half_a_line_is_dropped(run):
    with run.metrics.open("a") as stream:
        stream.write('{"event": "tr')
    run.settle(best_step=0, records=9)
    assert [record["step"] for record in run.read_metrics()] == [1, 2, 3]
    assert run.metrics.read_bytes().endswith(b"}\n")


def test_a_best_checkpoint_that_the_last_one_knows_takes_its_place(run):
    run.best.write_bytes(b"old")
    run.pending_best(20).write_bytes(b"new")
    run.pending_best(30).write_bytes(b"of the future")
    run.settle(best_step=20, records=3)
    assert run.best.read_bytes() == b"new"
    assert not list(run.path.glob(".best*"))


def test_a_best_checkpoint_of_the_future_is_dropped(run):
    run.best.write_bytes(b"old")
    run.pending_best(30).write_bytes(b"of the future")
    run.settle(best_step=20, records=3)
    assert run.best.read_bytes() == b"old"
    assert not list(run.path.glob(".best*"))


def test_temporary_files_of_killed_runs_go_and_others_stay(run):
    run.overlays.mkdir()
    stale = [".last.123.0123abcd.tmp.pth", ".metrics.9.89abcdef.tmp.jsonl", "overlays/.a b.c.77.00000000.tmp.png"]
    kept = [".hidden", ".best.pth", ".best.x.pth", ".last.123.tmp.pth", "notes.1.0123abcd.tmp.txt", "overlays/.keep"]
    for name in (*stale, *kept):
        (run.path / name).write_text("x")
    run.settle(best_step=0, records=3)
    assert not [name for name in stale if (run.path / name).exists()]
    assert [name for name in kept if (run.path / name).exists()] == kept


def test_a_new_run_starts_without_leftovers(run):
    (run.path / ".last.123.0123abcd.tmp.pth").write_text("x")
    run.pending_best(3).write_text("x")
    run.start({}, {"train": [], "val": []})
    assert sorted(path.name for path in run.path.iterdir()) == ["config.json", "split.json"]


def test_killed_while_a_file_is_written_leaves_a_name_that_is_recognised(run):
    import os
    import subprocess
    import sys

    code = (
        "import os, sys; from unet_edge_runtime.files import atomic_path\n"
        "with atomic_path(sys.argv[1]) as path: path.write_text('half'); os.kill(os.getpid(), 9)"
    )
    subprocess.run([sys.executable, "-c", code, str(run.last)], check=False)
    assert len(os.listdir(run.path)) == 2  # noqa: PTH208
    run.settle(best_step=0, records=3)
    assert os.listdir(run.path) == ["metrics.jsonl"]  # noqa: PTH208
