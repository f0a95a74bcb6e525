"""Core ML in a process of its own: a Neural Engine compile that fails takes the whole process down."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import threading
import weakref
from collections.abc import Sequence
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from .coreml_wire import Message, receive, send
from .errors import BackendError, MissingExtraError, ModelFileError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

__all__ = ["COMPUTE_UNITS", "TIMEOUT", "CoreMLProcess", "check_mac"]

COMPUTE_UNITS = {
    "cpu": "CPU",
    "gpu": "CPU and GPU",
    "ane": "CPU and Neural Engine",
    "all": "all compute units",
}
"""Choice -> what Core ML may then use."""

TIMEOUT = 900.0
"""Seconds that one request may take; the first Neural Engine compile of a large network takes minutes."""

_MODULE = "unet_edge_runtime.coreml_process"
_PATIENCE = 3.0  # seconds for a process to end by itself
_DOING = {
    "open": "opened the model",
    "load": "loaded the model",
    "predict": "ran the model",
    "measure": "ran the model",
    "plan": "planned the model's operations",
    "devices": "listed the devices",
}


def check_mac(package: Path, instead: str) -> None:
    """Insist on macOS.

    Args:
        package: what was to be run, for the message.
        instead: what to do elsewhere.

    Raises:
        BackendError: this is another system.
    """
    if sys.platform != "darwin":
        raise BackendError(f"{package}: Core ML runs on macOS only; {instead}")


class CoreMLProcess:
    """A child process that has Core ML open a package on some compute units. Requests take turns.

    Args:
        package: the .mlpackage.
        compute_units: one of `COMPUTE_UNITS`.
        timeout: seconds that a request may take before the child is killed.

    Raises:
        BackendError: unknown compute units.
    """

    def __init__(self, package: Path, compute_units: str = "ane", timeout: float = TIMEOUT) -> None:
        if compute_units not in COMPUTE_UNITS:
            raise BackendError(f"compute units must be one of {', '.join(COMPUTE_UNITS)}, not {compute_units!r}")
        self.package, self.compute_units, self.timeout = package, compute_units, timeout
        self._failure = ""
        self._lock = threading.Lock()
        self._stderr: IO[bytes] = tempfile.TemporaryFile()  # noqa: SIM115 - lives as long as the process
        self._process = subprocess.Popen(
            [sys.executable, "-m", _MODULE],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._stderr,
            env=_environment(),
        )
        # Also runs when the interpreter ends, so that no child outlives its parent.
        self._stop = weakref.finalize(self, _end, self._process, self._stderr)

    @property
    def pid(self) -> int:
        """The child's."""
        return self._process.pid

    def request(self, do: str, arrays: Sequence[NDArray[np.generic]] = (), **values: Any) -> Message:
        """Have the child do something.

        Args:
            do: a method of the child's session.
            arrays: for it.
            values: its arguments, as JSON holds them.

        Raises:
            ModelFileError: the package is damaged, or Core ML does not take it.
            MissingExtraError: coremltools is not installed.
            BackendError: Core ML failed, the child died, or it took longer than the timeout.
        """
        with self._lock:
            if self._failure or not self._stop.alive:
                raise BackendError(self._failure or f"{self.package}: its Core ML process was closed: open it again")
            values.update(do=do, package=str(self.package), compute_units=self.compute_units)
            answer, results = self._exchange(do, values, arrays)
        if "error" in answer:
            raise _error(answer)
        return answer, results

    def close(self) -> None:
        """End the child; it leaves nothing behind."""
        self._stop()

    def __enter__(self) -> CoreMLProcess:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _exchange(self, do: str, values: dict[str, Any], arrays: Sequence[NDArray[np.generic]]) -> Message:
        stdin, stdout = self._process.stdin, self._process.stdout
        assert stdin is not None
        assert stdout is not None
        said_before = self._stderr.seek(0, os.SEEK_END)
        late = threading.Event()
        timer = threading.Timer(self.timeout, _kill, [self._process, late])
        timer.daemon = True
        timer.start()
        try:
            send(stdin, values, arrays)
            return receive(stdout)
        except (OSError, EOFError, ValueError) as error:
            timer.cancel()
            self._failure = self._reason(do, late.is_set(), said_before, error)
            self._stop()
            raise BackendError(self._failure) from None
        except BaseException:
            # Interrupted between question and answer: the next answer would be that to this question.
            self._stop()
            raise
        finally:
            timer.cancel()

    def _reason(self, do: str, late: bool, said_before: int, error: Exception) -> str:
        where = f"while it {_DOING[do]} on the {COMPUTE_UNITS[self.compute_units]}".replace("the all", "all")
        code = self._exit_code()
        if late:
            what = f"gave no answer within {self.timeout:g} s {where} and was stopped"
        elif isinstance(error, ValueError):
            what = f"sent something else than an answer ({error}) {where}"
        elif code < 0:
            what = f"was killed by {_signal_name(-code)} {where}"
        else:
            what = f"ended with exit code {code} {where}"
        last = self._last_words(said_before)
        advice = (
            "check the file with --backend coreml-ref" if self.compute_units == "cpu" else "try --compute-units cpu"
        )
        return f"{self.package}: the Core ML process {what}{f' ({last})' if last else ''}: {advice}"

    def _exit_code(self) -> int:
        try:
            return self._process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self._process.kill()
            return self._process.wait()

    def _last_words(self, since: int) -> str:
        self._stderr.seek(since)
        lines = self._stderr.read().decode(errors="replace").strip().splitlines()
        return lines[-1].strip()[:200] if lines else ""


def _environment() -> dict[str, str]:
    """Ours, so that the child finds this package, and takes no module from the folder it is started in."""
    paths = [*filter(None, [os.environ.get("PYTHONPATH")]), str(Path(__file__).parents[1])]
    return {**os.environ, "PYTHONPATH": os.pathsep.join(paths), "PYTHONSAFEPATH": "1"}


def _kill(process: subprocess.Popen[bytes], late: threading.Event) -> None:
    """Ends a blocked write to the child as well as a blocked read."""
    late.set()
    process.kill()


def _end(process: subprocess.Popen[bytes], stderr: IO[bytes]) -> None:
    """Ask by closing its input, insist by killing; always wait, so that no zombie stays."""
    for pipe in (process.stdin, process.stdout):
        with contextlib.suppress(OSError):
            if pipe is not None:
                pipe.close()
    try:
        process.wait(_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
    stderr.close()


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _error(answer: dict[str, Any]) -> Exception:
    if answer["error"] == "MissingExtraError":
        return MissingExtraError(answer["package"], "export", "backend coreml")
    kind = ModelFileError if answer["error"] == "ModelFileError" else BackendError
    return kind(answer["message"])
