"""Files inside a zip or tar archive, read one by one; nothing is ever written where an archive says."""

from __future__ import annotations

import lzma
import stat
import tarfile
import zipfile
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import IO

from unet_edge_runtime.errors import InputError

__all__ = ["members"]

LARGEST = 64 << 20  # bytes of one unpacked file
TOTAL = 32 << 30  # of all of them
COUNT = 1_000_000
BLOCK = 1 << 20


def members(
    path: Path, *, largest: int = LARGEST, total: int = TOTAL, count: int = COUNT
) -> Iterator[tuple[str, bytes]]:
    """Names and contents of all files in an archive: of a zip sorted by name, of a tar in its order.

    Args:
        path: .zip, or .tar with any compression that tarfile reads.
        largest: bytes that one file has at most once it is unpacked; counted, not believed.
        total: bytes of all of them.
        count: how many entries there are at most.

    Raises:
        InputError: it is damaged, larger than the bounds, or holds links, devices or names that lead out of a folder.
    """
    entries = _from_zip(path, count) if zipfile.is_zipfile(path) else _from_tar(path, count)
    unpacked = 0
    try:
        for name, stream in entries:
            content = _read(path, name, stream, largest)
            unpacked += len(content)
            if unpacked > total:
                raise InputError(f"{path}: unpacks to more than {total} bytes: not the expected archive")
            yield name, content
    except (OSError, EOFError, ValueError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile) as error:
        raise InputError(f"{path}: damaged archive ({error}): download it again") from None
    except (NotImplementedError, RuntimeError) as error:  # a compression or an encryption that zipfile cannot
        raise InputError(f"{path}: cannot be unpacked ({error}): download it again") from None


def _from_zip(path: Path, count: int) -> Iterator[tuple[str, IO[bytes]]]:
    with zipfile.ZipFile(path) as archive:
        infos = archive.infolist()
        _check_count(path, len(infos), count)
        for info in infos:
            # The upper half of the attributes is the mode that Unix programs store.
            kind = stat.S_IFMT(info.external_attr >> 16)
            if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
                raise InputError(f"{path}: holds a link or device ({info.filename!r}): not the expected archive")
            _check_name(path, info.filename)
        for info in sorted(infos, key=lambda info: info.filename):
            if not info.is_dir():
                with archive.open(info) as stream:
                    yield info.filename, stream


def _from_tar(path: Path, count: int) -> Iterator[tuple[str, IO[bytes]]]:
    with tarfile.open(path, "r|*") as archive:
        for number, info in enumerate(archive, 1):
            _check_count(path, number, count)
            _check_name(path, info.name)
            if not (info.isfile() or info.isdir()):
                raise InputError(f"{path}: holds a link or device ({info.name!r}): not the expected archive")
            if info.isfile() and (stream := archive.extractfile(info)):
                yield info.name, stream


def _read(path: Path, name: str, stream: IO[bytes], largest: int) -> bytes:
    blocks, have = [], 0
    while block := stream.read(BLOCK):
        have += len(block)
        if have > largest:
            raise InputError(f"{path}: {name!r} unpacks to more than {largest} bytes: not the expected archive")
        blocks.append(block)
    return b"".join(blocks)


def _check_count(path: Path, found: int, count: int) -> None:
    if found > count:
        raise InputError(f"{path}: holds more than {count} files: not the expected archive")


def _check_name(path: Path, name: str) -> None:
    parts = name.replace("\\", "/").split("/")
    if name.startswith(("/", "\\")) or ".." in parts or ":" in name or "\0" in name:
        raise InputError(f"{path}: holds {name!r}, which leads out of its folder: not the expected archive")
