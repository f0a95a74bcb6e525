"""Compiled models: made once, made again when something is off, whoever else is at it."""

from __future__ import annotations

import os
import threading
import time
from pathlib import Path

import pytest

from unet_edge_runtime.coreml_cache import CompiledModels
from unet_edge_runtime.files import cache_folder, sha256_of


@pytest.fixture
def package(tmp_path):
    folder = tmp_path / "a.mlpackage"
    (folder / "Data").mkdir(parents=True)
    (folder / "Data" / "weight.bin").write_bytes(b"weights")
    return folder


class Compiler:
    """Writes two files and counts."""

    def __init__(self, delay=0.0):
        self.calls, self.delay = 0, delay

    def __call__(self, target: Path):
        assert target.suffix == ".mlmodelc"
        assert not target.exists()
        self.calls += 1
        time.sleep(self.delay)
        target.mkdir()
        (target / "model.mil").write_text("program")
        (target / "weight.bin").write_bytes(b"w" * 99)


@pytest.fixture
def cache(tmp_path):
    return CompiledModels(tmp_path / "cache", "coremltools 9.0 macOS 15.1")


def test_it_is_compiled_once_and_stays_in_its_place(cache, package):
    compiler = Compiler()
    first, fresh = cache.get(package, compiler)
    assert fresh
    assert (first / "model.mil").read_text() == "program"
    assert cache.get(package, compiler) == (first, False)
    again = CompiledModels(cache.folder, cache.system)
    assert again.get(package, compiler) == (first, False)
    assert compiler.calls == 1
    assert [path.name for path in cache.folder.iterdir()] == [first.parent.name]


@pytest.mark.parametrize("change", ["content", "name", "system"])
def test_another_package_or_system_is_another_entry(cache, package, change):
    compiler = Compiler()
    first, _ = cache.get(package, compiler)
    if change == "content":
        (package / "Data" / "weight.bin").write_bytes(b"Weights")
    elif change == "name":
        (package / "Data" / "weight.bin").rename(package / "Data" / "other.bin")
    else:
        cache = CompiledModels(cache.folder, "coremltools 9.0 macOS 15.2")
    second, fresh = cache.get(package, compiler)
    assert fresh
    assert second != first


def test_a_copy_elsewhere_shares_the_entry(cache, package, tmp_path):
    compiler = Compiler()
    first, _ = cache.get(package, compiler)
    package.rename(tmp_path / "moved.mlpackage")
    assert cache.get(tmp_path / "moved.mlpackage", compiler) == (first, False)


@pytest.mark.parametrize("damage", ["flipped", "truncated", "missing", "no list", "bad list"])
def test_a_damaged_entry_is_made_again(cache, package, damage):
    compiler = Compiler()
    path, _ = cache.get(package, compiler)
    listed = path.parent / "content.json"
    {
        "flipped": lambda: (path / "weight.bin").write_bytes(b"w" * 98 + b"x"),
        "truncated": lambda: (path / "weight.bin").write_bytes(b"w" * 98),
        "missing": (path / "weight.bin").unlink,
        "no list": listed.unlink,
        "bad list": lambda: listed.write_text("[1]"),
    }[damage]()
    assert cache.get(package, compiler) == (path, True)
    assert (path / "weight.bin").read_bytes() == b"w" * 99
    assert cache.get(package, compiler) == (path, False)
    assert compiler.calls == 2
    assert len(list(cache.folder.iterdir())) == 1


def test_what_the_system_adds_does_no_harm(cache, package):
    path, _ = cache.get(package, Compiler())
    (path / "specialised").write_text("x")
    assert cache.get(package, Compiler()) == (path, False)


def test_a_compiler_that_fails_leaves_nothing(cache, package):
    def fail(target):
        target.mkdir()
        raise RuntimeError("error code: -14")

    with pytest.raises(RuntimeError, match="-14"):
        cache.get(package, fail)
    assert list(cache.folder.iterdir()) == []
    assert cache.get(package, Compiler())[1]


def test_many_at_once_all_get_an_intact_one(cache, package):
    compiler, found = Compiler(delay=0.05), []
    threads = [
        threading.Thread(target=lambda: found.append(cache.get(package, compiler)[0] / "model.mil")) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(found) == 8
    assert all(path.read_text() == "program" for path in found)
    assert len(list(cache.folder.iterdir())) == 1


def test_a_folder_that_cannot_be_made_is_no_obstacle(package, tmp_path):
    (tmp_path / "file").write_text("")
    path, fresh = CompiledModels(tmp_path / "file" / "cache", "x").get(package, Compiler())
    assert fresh
    assert path.is_dir()


def test_entries_that_nobody_uses_go(cache, package):
    path, _ = cache.get(package, Compiler())
    old = time.time() - 40 * 24 * 3600
    os.utime(path.parent, (old, old))
    (package / "Data" / "weight.bin").write_bytes(b"other")
    cache.get(package, Compiler())
    assert not path.exists()


def test_a_used_entry_counts_as_new(cache, package):
    path, _ = cache.get(package, Compiler())
    old = time.time() - 40 * 24 * 3600
    os.utime(path.parent, (old, old))
    cache.get(package, Compiler())
    assert time.time() - path.parent.stat().st_mtime < 60


def test_the_digest_sees_names_and_content(package):
    before = sha256_of(package)
    assert len(before) == 64
    (package / "more").write_text("")
    assert sha256_of(package) != before


def test_the_folder_can_be_chosen(monkeypatch, tmp_path):
    monkeypatch.setenv("UNET_EDGE_CACHE", str(tmp_path))
    assert cache_folder() == tmp_path
    monkeypatch.delenv("UNET_EDGE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "unet-edge"
