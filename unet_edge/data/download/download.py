"""From a name to a folder with images, masks, a split and a README."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from unet_edge.data.looking import Progress
from unet_edge_runtime.errors import InputError
from unet_edge_runtime.files import sha256_of, size_of, write_json

from .catalogue import CATALOGUE, Archive, PublicSet
from .fetch import PAUSE, check_digest, fetch
from .kaggle import kaggle_headers

__all__ = ["download"]

RECORD = "source.json"
ARCHIVES = "archives"
MADE = ("images", "masks", "val.txt")

_README = """# {title}

Licence: {licence}
Source: {source}
Cite: {citation}

`images/` and `masks/`: {layout}. {count} pairs.
`val.txt`: what validates: {split}.

{checked}

Made by `unet-edge data download {name}`.
"""


def download(
    name: str,
    folder: Path,
    *,
    given: Sequence[Path] = (),
    address: str | None = None,
    keep_archives: bool = False,
    progress: Progress | None = None,
    say: Callable[[str], None] = lambda message: None,
    pause: float = PAUSE,
) -> PublicSet:
    """Download a public data set and lay it out; an interrupted one is continued, a complete one is left alone.

    Args:
        name: one of `CATALOGUE`.
        folder: new or empty, or one that this function began; gets images/, masks/, val.txt, README.md.
        given: archives that were downloaded by hand, found by their file names.
        address: of another server's folder that holds the archives; the publisher's by default.
        keep_archives: leave the archives in the folder.
        progress: draws a bar, such as `cli.common.track`.
        say: told the licence before anything is fetched, and what happens.
        pause: seconds before a second attempt.

    Returns:
        What was downloaded.

    Raises:
        InputError: no such set, no connection or account or room, a wrong archive, or a folder of something else.
    """
    wanted = CATALOGUE.get(name)
    if wanted is None:
        raise InputError(f"no data set is called {name!r}: there are {', '.join(CATALOGUE)}")
    record = _record(folder, name)
    for line in (wanted.title, f"licence: {wanted.licence}", f"source: {wanted.source}", f"cite: {wanted.citation}"):
        say(line)
    if record.get("complete") and all((folder / item).exists() for item in MADE):
        say(f"{folder} holds it already")
        return wanted
    by_name = _given(wanted, given)
    folder.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder).free + size_of(folder) < wanted.room:
        raise InputError(f"{folder}: {name} needs {wanted.room >> 20} MiB while it is made: make room")
    missing = [a for a in wanted.archives if a.file not in by_name and not (folder / ARCHIVES / a.file).exists()]
    headers = kaggle_headers() if wanted.account and missing else {}
    write_json(folder / RECORD, {"name": name, "complete": False})
    paths = []
    for archive in wanted.archives:
        if archive.file in by_name:
            check_digest(by_name[archive.file], archive.digest)
            paths.append(by_name[archive.file])
        else:
            url = f"{address or archive.address}/{archive.file}"
            target = folder / ARCHIVES / archive.file
            paths.append(
                fetch(
                    url, target, limit=archive.limit, digest=archive.digest, headers=headers, progress=progress,
                    pause=pause,
                )
            )  # fmt: skip
    _lay_out(wanted, paths, folder, progress)
    if not keep_archives:
        shutil.rmtree(folder / ARCHIVES, ignore_errors=True)
    return wanted


def _lay_out(wanted: PublicSet, paths: list[Path], folder: Path, progress: Progress | None) -> None:
    """Write everything beside its place, then move it there; the record says last that all is there."""
    making = folder / ".making"
    shutil.rmtree(making, ignore_errors=True)
    for kind in MADE[:2]:
        (making / kind).mkdir(parents=True)
    names = wanted.convert(paths, making)
    count = sum(1 for _ in (progress(names, "Unpacking", wanted.pairs) if progress else names))
    if not count:
        raise InputError(f"{paths[0]}: holds no pair of {wanted.name}: is it the right archive?")
    sums = [_sum(archive, path) for archive, path in zip(wanted.archives, paths, strict=True)]
    for item in MADE:
        _replace(making / item, folder / item)
    making.rmdir()
    checked = "\n".join(f"`{s['file']}`: SHA-256 {s['sha256']}, {s['checked']}" for s in sums)
    text = _README.format(**{**vars(wanted), "count": f"{count:,}", "checked": checked})
    (folder / "README.md").write_text(text, encoding="utf-8")
    record = {"name": wanted.name, "licence": wanted.licence, "source": wanted.source, "pairs": count, "archives": sums}
    write_json(folder / RECORD, {**record, "complete": True})


def _sum(archive: Archive, path: Path) -> dict[str, Any]:
    checked = f"its {archive.digest.replace(':', ' ')} was as expected" if archive.digest else "only recorded"
    if archive.digest is None:
        checked += ": the publisher gives no checksum to compare with"
    return {"file": archive.file, "bytes": path.stat().st_size, "sha256": sha256_of(path), "checked": checked}


def _given(wanted: PublicSet, given: Sequence[Path]) -> dict[str, Path]:
    files = [archive.file for archive in wanted.archives]
    unknown = [path for path in given if path.name not in files]
    if unknown:
        raise InputError(f"{unknown[0]}: no archive of {wanted.name}; they are called {', '.join(files)}")
    return {path.name: path for path in given}


def _record(folder: Path, name: str) -> dict[str, Any]:
    """What was begun in a folder; refuses one that holds anything else."""
    if not folder.exists() or (folder.is_dir() and not any(folder.iterdir())):
        return {}
    try:
        record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
        if record["name"] == name:
            return dict(record)
    except (OSError, ValueError, TypeError, KeyError):
        pass
    raise InputError(f"{folder}: holds something else than {name}: choose another folder")


def _replace(source: Path, target: Path) -> None:
    if target.is_dir():
        shutil.rmtree(target)
    os.replace(source, target)
