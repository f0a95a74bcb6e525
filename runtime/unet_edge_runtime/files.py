"""Files that are written whole or not at all."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import shutil
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .errors import InputError

__all__ = ["atomic_path", "cache_folder", "files_of", "sha256_of", "size_of", "write_json", "write_text"]


@contextlib.contextmanager
def atomic_path(target: Path | str) -> Iterator[Path]:
    """Yield a temporary path beside `target`; on success it takes the target's place, on failure it is removed.

    Works for files and for folders (a Core ML package is one). The temporary name keeps the suffix, because
    several libraries choose the format by it. A folder that stands there is replaced only where its name has a
    suffix, as a package's has: one without is somebody's folder.

    Raises:
        InputError: the folder does not exist and cannot be made, or cannot be written to, or `target` is a folder.
    """
    target = Path(target)
    if target.is_dir() and not target.suffix:
        raise InputError(f"cannot write {target}: it is a folder; choose another output")
    temporary = target.with_name(f".{target.stem[:40]}.{os.getpid()}.{secrets.token_hex(4)}.tmp{target.suffix}")
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        if not os.access(target.parent, os.W_OK):
            raise PermissionError(f"no permission to write in {target.parent}")
    except OSError as error:
        raise InputError(f"cannot write {target}: {error}; choose another output") from None
    try:
        yield temporary
        _put_in_place(temporary, target)
    finally:
        _remove(temporary)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text, atomically. Raises `InputError` where `atomic_path` does."""
    with atomic_path(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented UTF-8 JSON, atomically."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False) + "\n")


def cache_folder() -> Path:
    """Where caches live: `UNET_EDGE_CACHE`, or the place that the system has for them."""
    if chosen := os.environ.get("UNET_EDGE_CACHE"):
        return Path(chosen)
    if base := os.environ.get("XDG_CACHE_HOME"):
        return Path(base) / "unet-edge"
    home = Path(os.path.expanduser("~"))  # noqa: PTH111 - Path.home() raises where there is none
    return home / ("Library/Caches" if sys.platform == "darwin" else ".cache") / "unet-edge"


def sha256_of(path: Path | str) -> str:
    """SHA-256 of a file's content, as 64 hexadecimal digits.

    Of a folder, which a Core ML package is, that of the sorted `<digest>  ./<name>` lines of all files in it, as
    `sha256sum` prints them.
    """
    path = Path(path)
    if path.is_dir():
        lines = [f"{sha256_of(file)}  ./{file.relative_to(path).as_posix()}\n" for file in files_of(path)]
        return hashlib.sha256("".join(lines).encode()).hexdigest()
    digest = hashlib.sha256()
    with path.open("rb") as stream:
        while block := stream.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


def size_of(path: Path | str) -> int:
    """Bytes of a file, or of all files in a folder."""
    return sum(file.stat().st_size for file in files_of(path))


def files_of(path: Path | str) -> list[Path]:
    """The file itself, or all files in a folder, sorted by name."""
    path = Path(path)
    return sorted(file for file in path.rglob("*") if file.is_file()) if path.is_dir() else [path]


def _put_in_place(temporary: Path, target: Path) -> None:
    if temporary.is_file():
        if target.is_dir():
            raise InputError(f"cannot write {target}: it is a folder; choose another output")
        # Without this a power cut after the rename can leave an empty file under the final name.
        with temporary.open("rb") as stream:
            os.fsync(stream.fileno())
    if not target.is_dir():
        os.replace(temporary, target)
        return
    # A folder cannot be replaced in one call: the old one steps aside and comes back if the rename fails.
    aside = target.with_name(f".{target.name}.{os.getpid()}.old")
    os.replace(target, aside)
    try:
        os.replace(temporary, target)
    except OSError:
        os.replace(aside, target)
        raise
    _remove(aside)


def _remove(path: Path) -> None:
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)
