"""A Python environment for each peer, in a cache folder, with exactly the versions in `requirements/`."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from unet_edge_runtime.errors import BackendError

__all__ = ["ROOT", "call", "environment", "fingerprint", "paths", "pinned"]

ROOT = Path(__file__).parents[2]
REQUIREMENTS = Path(__file__).parent / "requirements"
NEEDED_BYTES = 4 << 30  # free space below which nothing is installed: the largest environment takes 2.1 GB
_STAMP = "requirements.txt"
_SAID = 300  # characters of a failed command's last line


def environment(name: str, cache: Path) -> str:
    """The interpreter of a peer's environment, which is made if it is missing or its requirements have changed.

    Nothing is resolved: the requirements name every package, so that two machines get the same.

    Args:
        name: of a file in `requirements/`.
        cache: folder of all environments.

    Raises:
        BackendError: it cannot be made; one line says why.
    """
    wanted = requirements_file(name).read_text(encoding="utf-8")
    folder = cache / "environments" / name
    python = folder / "bin" / "python"
    stamp = folder / _STAMP
    if python.exists() and stamp.exists() and stamp.read_text(encoding="utf-8") == wanted:
        return os.fspath(python)
    shutil.rmtree(folder, ignore_errors=True)
    folder.parent.mkdir(parents=True, exist_ok=True)
    if shutil.disk_usage(folder.parent).free < NEEDED_BYTES:
        raise BackendError(f"{folder.parent} has less than {NEEDED_BYTES >> 30} GB left: make room, or give a --cache")
    call([sys.executable, "-m", "venv", os.fspath(folder)])
    install = ["-m", "pip", "install", "--quiet", "--no-cache-dir", "--no-deps", "--disable-pip-version-check"]
    call([os.fspath(python), *install, "-r", os.fspath(requirements_file(name))])
    stamp.write_text(wanted, encoding="utf-8")  # last: an interrupted installation starts anew
    return os.fspath(python)


def requirements_file(name: str) -> Path:
    """Where a peer's pins are."""
    return REQUIREMENTS / f"{name}.txt"


def pinned(name: str) -> dict[str, str]:
    """Package -> version of a peer's environment."""
    lines = requirements_file(name).read_text(encoding="utf-8").splitlines()
    return dict(line.split("==") for line in lines if line and not line.startswith("#"))  # type: ignore[misc]


def fingerprint(files: Iterable[Path]) -> str:
    """16 hexadecimal digits that change with any of the files: what is kept under them is never stale."""
    return hashlib.sha256(b"".join(path.read_bytes() for path in files)).hexdigest()[:16]


def paths(*folders: str) -> str:
    """PYTHONPATH of folders of the checkout; the runtime, the suite and the runners always belong to it."""
    names = ("runtime", "benchmarks", "benchmarks/peers", *folders)
    return os.pathsep.join(os.fspath(ROOT / name) for name in names)


def call(command: Sequence[str], env: Mapping[str, str] | None = None, cwd: Path | None = None) -> str:
    """Run a command to its end and return what it printed.

    Raises:
        BackendError: it failed; with the last line that it said.
    """
    try:
        done = subprocess.run(
            command,
            env={**os.environ, **(env or {})},
            cwd=cwd,
            text=True,
            errors="replace",
            capture_output=True,
            check=False,
        )
    except OSError as error:
        raise BackendError(f"{command[0]} cannot be started ({error.strerror})") from None
    if done.returncode:
        said = (done.stderr.strip() or done.stdout.strip() or "without a word").splitlines()
        # pip's last lines are advice about itself; what went wrong stands in the last line that says so.
        errors = [line for line in said if line.lower().startswith("error")]
        raise BackendError(
            f"{Path(command[0]).name} ended with exit code {done.returncode}: {(errors or said)[-1][:_SAID]}"
        )
    return done.stdout
