"""The benchmark of OpenMP's waiting threads compares what it says, and writes a page."""

import argparse
import os
import subprocess
import sys
from pathlib import Path

import pytest

BENCHMARKS = Path(__file__).parents[2] / "benchmarks"
if str(BENCHMARKS) not in sys.path:
    sys.path.insert(0, str(BENCHMARKS))

import waiting  # noqa: E402 - a script beside the benchmark's package
from tests.drawn import write_pairs  # noqa: E402

OPTIONS = argparse.Namespace(
    images="images", masks="masks", scale=1.0, fraction=1.0, base_channels=4, rounds=2, busy=1, out=None
)


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere OpenMP libraries tell their settings in other words")
@pytest.mark.parametrize(("way", "sleeps"), [(waiting.SPINNING, False), (waiting.SLEEPING, True)])
def test_the_ways_differ_in_how_threads_wait(way, sleeps, tmp_path):
    environment = {name: value for name, value in os.environ.items() if name != "OMP_WAIT_POLICY"}
    command = [sys.executable, "-c", way[1], "train", "--images", ".", "--masks", ".", "--out", "run"]
    environment["OMP_DISPLAY_ENV"] = "VERBOSE"
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True)
    assert "GOMP_SPINCOUNT" in done.stderr
    assert ("GOMP_SPINCOUNT = '0'" in done.stderr) == sleeps


def test_the_page_tells_the_ratio_in_the_right_direction(monkeypatch):
    speeds = {waiting.SPINNING[1]: 2.0, waiting.SLEEPING[1]: 10.0}
    monkeypatch.setattr(waiting, "images_a_second", lambda code, options: speeds[code])
    lines = waiting.page(OPTIONS, waiting.measure(OPTIONS))
    sleeping = [line for line in lines if "sleeping" in line]
    assert [line.split(" | ")[0] for line in sleeping] == ["| nothing", "| one busy program"]
    assert all("| 100" in line and "| 5 [5–5] |" in line for line in sleeping)
    assert not any("5 [5–5]" in line for line in lines if "spinning, " in line)


@pytest.mark.slow
def test_it_measures_real_trainings(tmp_path):
    images, masks = write_pairs(tmp_path)
    options = argparse.Namespace(**{**vars(OPTIONS), "images": images, "masks": masks})
    assert waiting.images_a_second(waiting.SLEEPING[1], options) > 0
    with waiting.beside(1):
        assert waiting.images_a_second(waiting.SPINNING[1], options) > 0
