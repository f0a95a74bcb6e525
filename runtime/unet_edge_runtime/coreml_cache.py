"""Compiled Core ML models, kept between runs: compiling and specialising takes seconds to minutes, opening a tenth.

Core ML ties what it prepares for the Neural Engine to the compiled model's path, so that path has to stay the same.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from .files import files_of, sha256_of

__all__ = ["CompiledModels"]

_CONTENT = "content.json"  # file -> SHA-256
_KEPT = 30 * 24 * 3600  # seconds that an entry lives after its last use


class CompiledModels:
    """A folder of compiled models, shared by all processes of a user.

    An entry appears by a rename, complete, with the digests of its files; one whose files do not match is made
    again. Two processes that want the same one at the same time both compile it, and the first wins.

    Args:
        folder: where they are kept; it is made when needed.
        system: what compiled them: the versions of coremltools and macOS. Another system compiles again.
    """

    def __init__(self, folder: Path, system: str) -> None:
        self.folder, self.system = folder, system

    def get(self, package: Path, compile_to: Callable[[Path], None], again: bool = False) -> tuple[Path, bool]:
        """The compiled form of a package.

        Args:
            package: the .mlpackage.
            compile_to: compiles it to a path that ends in .mlmodelc and does not exist yet.
            again: do not trust what is there.

        Returns:
            The .mlmodelc folder, and whether it was compiled just now.
        """
        key = hashlib.sha256(f"{sha256_of(package)}\0{self.system}".encode()).hexdigest()[:32]
        entry = self._usable_folder() / key
        if not again and _is_intact(entry):
            with contextlib.suppress(OSError):
                os.utime(entry)
            return _model(entry), False
        self._remove_old()
        made = Path(tempfile.mkdtemp(prefix=f".{key}.", dir=entry.parent))
        try:
            compile_to(_model(made))
            (made / _CONTENT).write_text(json.dumps(_digests(_model(made))), encoding="utf-8")
            _install(made, entry, again)
        finally:
            shutil.rmtree(made, ignore_errors=True)
        return _model(entry), True

    def _usable_folder(self) -> Path:
        """The folder, or where it cannot be written a temporary one, which the system clears away."""
        try:
            self.folder.mkdir(parents=True, exist_ok=True)
            if os.access(self.folder, os.W_OK):
                return self.folder
        except OSError:
            pass
        self.folder = Path(tempfile.mkdtemp(prefix="unet-edge-"))
        return self.folder

    def _remove_old(self) -> None:
        for entry in self.folder.iterdir():
            with contextlib.suppress(OSError):
                if time.time() - entry.stat().st_mtime > _KEPT:
                    shutil.rmtree(entry, ignore_errors=True)


def _model(entry: Path) -> Path:
    return entry / "model.mlmodelc"


def _is_intact(entry: Path) -> bool:
    """Whether all files are as they were written; ones that the system added do not matter."""
    try:
        expected = json.loads((entry / _CONTENT).read_text(encoding="utf-8"))
        return bool(expected) and all(sha256_of(_model(entry) / name) == digest for name, digest in expected.items())
    except (OSError, ValueError, AttributeError, TypeError):
        return False


def _install(made: Path, entry: Path, again: bool) -> None:
    """Give a finished entry its name, unless another process was faster with an intact one."""
    for _ in range(3):
        try:
            os.replace(made, entry)
            return
        except OSError:
            if not entry.exists():
                raise
        if not again and _is_intact(entry):
            return
        # Whoever has the damaged one open keeps its files; the name is free at once.
        aside = made.with_name(f"{made.name}.old")
        with contextlib.suppress(OSError):
            os.replace(entry, aside)
        shutil.rmtree(aside, ignore_errors=True)
    raise OSError(f"{entry} is being replaced by other processes all the time")


def _digests(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): sha256_of(path) for path in files_of(folder)}
