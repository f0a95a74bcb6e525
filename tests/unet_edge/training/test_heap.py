"""Freed memory stays with the process: the next step does not wait for the system to clear it again."""

from __future__ import annotations

import os
import platform
import subprocess
import sys

import pytest

from unet_edge.training import engine as engine_module

from .conftest import make_engine

CODE = """
import ctypes, resource, sys
from unet_edge.training.heap import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype, libc.malloc.argtypes, libc.free.argtypes = ctypes.c_void_p, [ctypes.c_size_t], [ctypes.c_void_p]
SIZE = 20_000_000  # bytes, as a block's activations
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    blocks = [libc.malloc(SIZE) for _ in range(8)]
    for block in blocks:
        ctypes.memset(block, 1, SIZE)
    for block in blocks:
        libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
said = keep_freed_memory() if sys.argv[1] == "keep" else None
faults()
print(said, sum(faults() for _ in range(5)))
"""

ONLY_GLIBC = pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="speaks to glibc's malloc")


def run(word: str, **environment: str) -> tuple[str, int]:
    inherited = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    command = [sys.executable, "-c", CODE, word]
    printed = subprocess.run(
        command, env={**inherited, **environment}, capture_output=True, text=True, check=True
    ).stdout
    said, faults = printed.split()
    return said, int(faults)


@ONLY_GLIBC
def test_the_same_pages_are_used_again():
    said, kept = run("keep")
    assert said == "True"
    assert kept < run("leave")[1] / 2


@ONLY_GLIBC
def test_whoever_governs_malloc_goes_on_doing_so():
    assert run("keep", MALLOC_TRIM_THRESHOLD_="131072")[0] == "False"


def test_another_c_library_is_left_alone(monkeypatch):
    from unet_edge.training import heap

    monkeypatch.setattr(heap.platform, "libc_ver", lambda: ("", ""))
    assert not heap.keep_freed_memory()


def test_only_training_on_a_cpu_asks_for_it(monkeypatch):
    calls = []
    monkeypatch.setattr(engine_module, "keep_freed_memory", lambda: calls.append(1))
    make_engine()
    assert calls == [1]
