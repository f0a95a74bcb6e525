"""Files that are written whole or not at all."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import atomic_path, sha256_of, size_of, write_json, write_text

ROOT = Path(__file__).parents[2]


def test_a_file_takes_its_place(tmp_path):
    target = tmp_path / "new" / "a.txt"
    for text in ("one", "two"):
        with atomic_path(target) as temporary:
            assert temporary.suffix == ".txt"
            assert temporary.parent == target.parent
            temporary.write_text(text)
            assert not target.exists() or target.read_text() == "one"
        assert target.read_text() == text
        assert list(target.parent.iterdir()) == [target]


@pytest.mark.parametrize("error", [RuntimeError, KeyboardInterrupt])
def test_a_failure_leaves_the_old_content(tmp_path, error):
    target = tmp_path / "a.txt"
    target.write_text("old")

    def write():
        with atomic_path(target) as temporary:
            temporary.write_text("half")
            raise error

    with pytest.raises(error):
        write()
    assert target.read_text() == "old"
    assert list(tmp_path.iterdir()) == [target]


def test_a_package_is_replaced_as_a_whole(tmp_path):
    target = tmp_path / "m.mlpackage"
    for name in ("one", "two"):
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / name).write_text(name)
        assert [path.name for path in target.iterdir()] == [name]
        assert list(tmp_path.iterdir()) == [target]


def test_a_package_whose_writing_fails_stays(tmp_path):
    target = tmp_path / "m.mlpackage"
    target.mkdir()
    (target / "old").touch()

    def write():
        with atomic_path(target) as temporary:
            temporary.mkdir()
            (temporary / "half").touch()
            raise RuntimeError

    with pytest.raises(RuntimeError):
        write()
    assert [path.name for path in target.iterdir()] == ["old"]
    assert list(tmp_path.iterdir()) == [target]


def test_somebodys_folder_is_never_replaced(tmp_path):
    """`-o photos` by mistake must not cost a folder of photos."""
    for name in ("photos", "photos.png"):
        folder = tmp_path / name
        folder.mkdir()
        (folder / "precious.jpg").write_text("x")

        def write(folder=folder):
            with atomic_path(folder) as temporary:
                temporary.write_text("mask")

        with pytest.raises(InputError, match=f"{name}: it is a folder"):
            write()
        assert [path.name for path in folder.iterdir()] == ["precious.jpg"]
    assert sorted(path.name for path in tmp_path.iterdir()) == ["photos", "photos.png"]


def test_killed_in_the_middle(tmp_path):
    target = tmp_path / "a.txt"
    target.write_text("old")
    code = (
        "import time; from unet_edge_runtime.files import atomic_path\n"
        f"with atomic_path({str(target)!r}) as temporary:\n"
        "    temporary.write_text('half'); print('ready', flush=True); time.sleep(60)"
    )
    environment = {**os.environ, "PYTHONPATH": str(ROOT / "runtime")}
    process = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, env=environment)
    assert process.stdout.readline() == b"ready\n"
    process.send_signal(signal.SIGKILL)
    process.communicate()
    time.sleep(0.05)
    assert target.read_text() == "old"


def test_a_place_that_cannot_be_written(tmp_path):
    (tmp_path / "file").touch()

    def write():
        with atomic_path(tmp_path / "file" / "a.txt"):
            pass

    with pytest.raises(InputError, match=r"cannot write .*a\.txt.*choose another output"):
        write()


def test_text_is_utf8_and_whole_or_not_there(tmp_path):
    target = tmp_path / "new" / "a.txt"
    write_text(target, "Größe\n")
    assert target.read_bytes() == "Größe\n".encode()
    with pytest.raises(UnicodeEncodeError):
        write_text(target, "half \ud800")
    assert target.read_bytes() == "Größe\n".encode()
    assert list(target.parent.iterdir()) == [target]


def test_json_and_hash(tmp_path):
    write_json(tmp_path / "a.json", {"name": "Größe"})
    assert json.loads((tmp_path / "a.json").read_text(encoding="utf-8")) == {"name": "Größe"}
    assert "Größe" in (tmp_path / "a.json").read_text(encoding="utf-8")
    (tmp_path / "b").write_bytes(b"abc")
    assert sha256_of(tmp_path / "b") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


def test_a_folder_has_the_digest_and_the_size_of_all_its_files(tmp_path):
    """The digest is what `find . -type f | sort | xargs sha256sum | sha256sum` prints."""
    (tmp_path / "package" / "data").mkdir(parents=True)
    (tmp_path / "package" / "data" / "weights").write_bytes(b"abc")
    (tmp_path / "package" / "manifest").write_bytes(b"")
    empty = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"
    abc = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    listed = f"{abc}  ./data/weights\n{empty}  ./manifest\n"
    assert sha256_of(tmp_path / "package") == hashlib.sha256(listed.encode()).hexdigest()
    assert size_of(tmp_path / "package") == 3
    assert size_of(tmp_path / "package" / "data" / "weights") == 3
