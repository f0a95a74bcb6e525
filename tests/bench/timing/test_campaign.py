from __future__ import annotations

import os
import re
import statistics
from pathlib import Path

import pytest

from tests.bench.timing.conftest import SHORT
from unet_edge_bench.process import Child
from unet_edge_bench.timing.campaign import rotated, run_campaign
from unet_edge_bench.timing.plan import Protocol, Row
from unet_edge_runtime.errors import BackendError, InputError


@pytest.fixture
def make_row(tmp_path, image):
    def make(id, backend, **how):
        return Row(id, tmp_path / "model", backend, image, **{"threads": 1, **how})

    return make


def test_a_rotation():
    assert [rotated("ABC", by) for by in range(4)] == [list("ABC"), list("CAB"), list("BCA"), list("ABC")]
    assert rotated("", 5) == []


def test_rows_take_turns_in_changing_order(make_row, make_backend, tmp_path):
    log = tmp_path / "log"
    write = f"open({str(log)!r}, 'a').write(self.options['called'])"
    backend = make_backend(write)
    rows = [make_row(id, backend, options={"called": id}) for id in "ABC"]
    campaign = run_campaign(rows, Protocol(2, 3, 0.0, 2, settle_seconds=0.0, warmup_seconds=0.0))
    # One first run each, then turns of one untimed image and two timed ones.
    first, second = "A B C AAABBBCCC CCCAAABBB BBBCCCAAA", "A C B AAACCCBBB BBBAAACCC CCCBBBAAA"
    assert log.read_text() == (first + second).replace(" ", "")
    for measured in campaign.rows.values():
        assert [[len(turn) for turn in launch] for launch in measured.samples_ms["inference"]] == [[2, 2, 2]] * 2
        assert measured.images == [[2, 2, 2]] * 2
    assert [len(launch) for launch in campaign.noise.samples_ms] == [3, 3]


def test_import_load_first_run_and_steady_runs_are_apart(make_row, make_backend):
    backend = make_backend(
        "time.sleep(0.01 if hasattr(self, 'ran') else 0.2)\nself.ran = True",
        opening="time.sleep(0.1)",
        imports="import time\ntime.sleep(0.3)\n",
    )
    campaign = run_campaign([make_row("A", backend)], SHORT)
    measured = campaign.rows["A"]
    for name, least in (("import", 300), ("load", 100), ("first_run", 200)):
        assert len(measured.startup_ms[name]) == 2
        assert least <= min(measured.startup_ms[name])
    assert max(measured.startup_ms["load"]) < 300
    steady = [ms for launch in measured.samples_ms["inference"] for turn in launch for ms in turn]
    assert 10 <= statistics.median(steady) < 100
    assert measured.facts["image_size"] == [60, 70]
    assert measured.facts["size"] == [60, 72]


FAILURES = {
    "refuses": ("pass", "raise BackendError('model: not with me')", "model: not with me"),
    "raises": ("raise RuntimeError('odd\\nsize')", "pass", "RuntimeError: odd size"),
    "crashes": ("os.abort()", "pass", r"the process crashed \(SIGABRT\)"),
    "is killed": ("os.kill(os.getpid(), 9)", "pass", "killed by the system, most likely for want of memory"),
    "leaves": ("sys.stderr.write('last words\\n')\nsys.stderr.flush()\nos._exit(3)", "pass", "exit code 3: last words"),
    "has a wrong shape": ("return batch[:, :1]", "pass", "returned shape .*expected"),
}


@pytest.mark.parametrize(("run", "opening", "reason"), FAILURES.values(), ids=FAILURES)
def test_a_row_that_fails_does_not_end_the_others(make_row, make_backend, run, opening, reason):
    rows = [make_row("bad", make_backend(run, opening)), make_row("good", make_backend())]
    campaign = run_campaign(rows, SHORT)
    assert campaign.complete
    assert re.search(reason, campaign.rows["bad"].reason)
    assert "\n" not in campaign.rows["bad"].reason
    assert campaign.rows["good"].reason is None
    assert campaign.rows["good"].images == [[2, 2], [2, 2]]


def test_a_module_that_is_missing_and_an_interpreter_that_is_none(make_row):
    rows = [make_row("a", "nowhere:Made"), make_row("b", "onnx", python="/nowhere/python")]
    campaign = run_campaign(rows, SHORT)
    assert campaign.rows["a"].reason == "ModuleNotFoundError: No module named 'nowhere'"
    assert campaign.rows["b"].reason.startswith("/nowhere/python cannot be started")


def test_one_that_does_not_answer_is_ended(make_row, make_backend):
    row = make_row("A", make_backend("time.sleep(60)"))
    campaign = run_campaign([row], Protocol(2, 2, 0.0, 1, timeout=2.0))
    assert campaign.rows["A"].reason == "gave no answer within 2 s and was ended"


def test_what_a_library_prints_reaches_nobody(make_row, make_backend):
    noisy = "print('hello', flush=True)\nos.write(1, b'from C\\n')"
    campaign = run_campaign([make_row("A", make_backend(noisy, opening=noisy))], SHORT)
    assert campaign.rows["A"].reason is None
    assert campaign.rows["A"].images == [[2, 2], [2, 2]]


def test_threads_are_set_before_anything_is_imported(make_row, make_backend):
    told = "os.environ['OMP_NUM_THREADS'] + os.environ['OPENBLAS_NUM_THREADS'] + os.environ['MKL_NUM_THREADS']"
    backend = make_backend("raise BackendError(f'{SEEN} {self.threads}')", imports=f"import os\nSEEN = {told}\n")
    assert run_campaign([make_row("A", backend, threads=3)], SHORT).rows["A"].reason == "333 3"


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="VmHWM is Linux's")
def test_peak_memory_is_the_rows_own(make_row, make_backend):
    held = bytearray(600 << 20)  # of this process, which the workers must not inherit
    held[:: 1 << 12] = b"x" * len(held[:: 1 << 12])
    rows = [make_row("small", make_backend()), make_row("large", make_backend("np.ones(300 << 17)"))]
    campaign = run_campaign(rows, SHORT)
    small, large = (min(campaign.rows[id].peak_memory) for id in ("small", "large"))
    assert small < 300 << 20
    assert 250 << 20 < large - small < 350 << 20


def test_ctrl_c_keeps_what_is_there_and_leaves_no_process(make_row, make_backend, tmp_path):
    log = tmp_path / "pids"
    backend = make_backend(opening=f"open({str(log)!r}, 'a').write(f'{{os.getpid()}}\\n')")

    def progress(done, total, label):
        if done == 5:
            raise KeyboardInterrupt

    campaign = run_campaign([make_row("A", backend), make_row("B", backend)], Protocol(2, 3, 0.0, 2, 0.0), progress)
    assert not campaign.complete
    assert campaign.rows["A"].images == [[2]]
    assert campaign.rows["B"].images == [[2, 2]]
    for pid in log.read_text().split():
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid), 0)


def test_progress_comes_to_its_end(make_row, make_backend):
    seen = []
    run_campaign([make_row("A", make_backend()), make_row("B", make_backend())], SHORT, lambda *step: seen.append(step))
    assert [done for done, _, _ in seen] == list(range(12))
    assert {total for _, total, _ in seen} == {12}


def test_untimed_and_refused_rows_start_nothing(make_row):
    rows = [make_row("a", "nowhere:X", untimed="no Mac"), make_row("b", "nowhere:X", refused="another size")]
    assert run_campaign(rows, SHORT).rows == {}


@pytest.mark.parametrize(
    "changes",
    [
        {"launches": 1},
        {"rounds": 1},
        {"min_samples": 0},
        {"seconds_per_turn": float("nan")},
        {"seconds_per_turn": float("inf")},
        {"seed": -1},
    ],
)
def test_a_protocol_that_says_nothing_is_refused(changes):
    with pytest.raises(InputError):
        Protocol(**changes)


def test_a_child_that_cannot_be_spoken_with():
    with pytest.raises(BackendError, match="No module named"), Child("no.such.module", 1) as child:
        child.ask(10, do="x")
