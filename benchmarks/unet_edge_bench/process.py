"""A process that answers one JSON object a line: `Child` is the side that asks, `answer_stream` the other."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import tempfile
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import IO, Any

import unet_edge_runtime
from unet_edge_runtime.errors import BackendError

__all__ = ["THREAD_VARIABLES", "Child", "answer_stream"]

Answer = Callable[[dict[str, Any]], dict[str, Any]]

THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "VECLIB_MAXIMUM_THREADS")
"""Read by the libraries when they are loaded, so they have to be there before a process starts."""

_PATIENCE = 5.0  # seconds for a process to end by itself
_SAID = 300  # characters of a process's last line that a reason quotes


class Child:
    """Starts `python -m module` and talks with it. A context manager that ends it.

    Args:
        module: what to run.
        threads: of OpenMP and BLAS in it.
        python: the interpreter.
        env: added to the environment.

    Raises:
        BackendError: the interpreter cannot be started.
    """

    def __init__(
        self, module: str, threads: int, python: str = sys.executable, env: Mapping[str, str] | None = None
    ) -> None:
        self._stderr = tempfile.TemporaryFile()  # noqa: SIM115 - closed with the process
        self._late = False
        try:
            # A session of its own: Ctrl-C is for the one who asks, who then ends the others.
            self.process = subprocess.Popen(
                [python, "-m", module],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=self._stderr,
                env=_environment(python, threads, env or {}),
                text=True,
                encoding="utf-8",
                start_new_session=True,
            )
        except OSError as error:
            self._stderr.close()
            raise BackendError(f"{python} cannot be started ({error.strerror})") from None

    def ask(self, timeout: float, **request: Any) -> dict[str, Any]:
        """Send a request and wait for its answer.

        Raises:
            BackendError: what the process answered instead, or how it ended.
        """
        assert self.process.stdin is not None
        assert self.process.stdout is not None
        timer = threading.Timer(timeout, self._give_up)
        timer.start()
        try:
            self.process.stdin.write(json.dumps(request) + "\n")
            self.process.stdin.flush()
            line = self.process.stdout.readline()
        except OSError:
            line = ""
        finally:
            timer.cancel()
        try:
            answer: dict[str, Any] = json.loads(line)
        except ValueError:
            raise BackendError(self._how_it_ended(timeout)) from None
        if "error" in answer:
            raise BackendError(answer["error"])
        return answer

    def close(self) -> None:
        """End the process, gently at first."""
        for stream in (self.process.stdin, self.process.stdout):
            with contextlib.suppress(OSError):
                if stream:
                    stream.close()
        try:
            self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        self._stderr.close()

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _give_up(self) -> None:
        self._late = True
        self.process.kill()

    def _how_it_ended(self, timeout: float) -> str:
        if self._late:
            return f"gave no answer within {timeout:g} s and was ended"
        try:
            code = self.process.wait(_PATIENCE)
        except subprocess.TimeoutExpired:
            self.process.kill()
            code = self.process.wait()
        said = self._last_words()
        if code == -getattr(signal, "SIGKILL", 9):
            return f"the process was killed by the system, most likely for want of memory{said}"
        if code < 0:
            return f"the process crashed ({signal.Signals(-code).name}){said}"
        return f"the process ended with exit code {code}{said}"

    def _last_words(self) -> str:
        self._stderr.seek(0)
        lines = self._stderr.read().decode("utf-8", "replace").strip().splitlines()
        return f": {' '.join(lines[-1].split())[:_SAID]}" if lines else ""


def answer_stream(answer: Answer) -> int:
    """Answer each line of standard input on standard output, which libraries' own prints cannot reach.

    Args:
        answer: takes a request and returns what to send.
    """
    out = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    for line in sys.stdin:
        request = json.loads(line)
        ends = request["do"] == "end"
        _send(out, _answer_or_error(answer, request))
        if ends:
            break
    return 0


def _answer_or_error(answer: Answer, request: dict[str, Any]) -> dict[str, Any]:
    try:
        return answer(request)
    except Exception as error:  # whatever a runtime raises belongs to this row alone
        text = " ".join(str(error).split()) or type(error).__name__
        ours = type(error).__module__ == "unet_edge_runtime.errors"
        return {"error": text if ours else f"{type(error).__name__}: {text}"}


def _send(out: IO[str], value: dict[str, Any]) -> None:
    out.write(json.dumps(value) + "\n")
    out.flush()


def _environment(python: str, threads: int, env: Mapping[str, str]) -> dict[str, str]:
    found = {**os.environ, **dict.fromkeys(THREAD_VARIABLES, str(threads)), "PYTHONUNBUFFERED": "1"}
    if python == sys.executable:
        # What is imported here may be a copy on sys.path alone; another interpreter is told by its row's env.
        here = [str(Path(__file__).parents[1]), str(Path(unet_edge_runtime.__file__).parents[1])]
        found["PYTHONPATH"] = os.pathsep.join([*here, *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**found, **env}
