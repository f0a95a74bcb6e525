"""A command with `--nproc N`: torch's elastic launcher, started and heard from here.

The launcher starts this module once a process. What goes wrong in a process is written into a folder instead of on
the screen, since the end of one process makes all others fail too; the launcher tells the first cause, once.
"""

from __future__ import annotations

import json
import logging
import os
import signal
import sys
import tempfile
import threading
import time
import traceback
import uuid
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any, NoReturn

import click

from unet_edge.data.resources import usable_cores
from unet_edge_runtime.files import write_json

from .distributed import PeerLostError

__all__ = ["LaunchableCommand", "is_launched", "launch", "work"]

FAILURES = "UNET_EDGE_FAILURES"  # the folder that processes write their failures into
FEWER = "start again, with fewer processes if memory is short"
STOP_SECONDS = 3600  # for a validation and a checkpoint after Ctrl-C; a second Ctrl-C does not wait
KINDS = ("ours", "crash", "lost")  # an error with a message of ours, any other one, and one that another one caused


@dataclass(frozen=True)
class Failure:
    """Why a process ended.

    Attributes:
        attempt: how often all processes had been started again.
        rank: of the process.
        kind: one of `KINDS`.
        message: for people; a traceback after a crash.
        exit_code: what the process alone would have ended with.
        time: seconds since the epoch.
    """

    attempt: int
    rank: int
    kind: str
    message: str
    exit_code: int
    time: float


class LaunchableCommand(click.Command):
    """A command that keeps its arguments in `context.obj`, as `launch` gives them to every process."""

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Keep the arguments, then parse them."""
        ctx.obj = list(args)
        return super().parse_args(ctx, args)


def is_launched() -> bool:
    """Whether this is one of the processes that `launch` has started, which launch nothing themselves."""
    return FAILURES in os.environ


def launch(arguments: Sequence[str], processes: int, restarts: int = 0, cure: str = FEWER) -> None:
    """Run `unet-edge` with these arguments in several processes of this machine and wait for their end.

    Ctrl-C reaches the processes, which stop, a training after it has saved. They end too when this process is killed.

    Args:
        arguments: the command's name and what was given to it.
        processes: how many.
        restarts: how often all are started again after one was lost.
        cure: what to do after one was lost for good.

    Raises:
        click.ClickException: the first cause of the end, with its exit code.
    """
    from torch.distributed.elastic.multiprocessing import SignalException
    from torch.distributed.elastic.multiprocessing.errors import ChildFailedError
    from torch.distributed.launcher.api import elastic_launch

    with tempfile.TemporaryDirectory(prefix="unet-edge-") as folder:
        os.environ.update(_environment(processes, folder, os.environ))
        logging.disable(logging.CRITICAL)  # the agent's own account of every failure
        killed: Mapping[int, Any] = {}
        try:
            elastic_launch(_launch_config(processes, restarts, folder), sys.executable)("-m", __name__, *arguments)
            return
        except ChildFailedError as error:
            killed = {rank: failure for rank, failure in error.failures.items() if failure.exitcode < 0}
        except SignalException:
            pass  # the processes have stopped, and have said how to go on
        finally:
            logging.disable(logging.NOTSET)
            del os.environ[FAILURES]
        raise _cause(_failures(Path(folder)), killed, processes, cure)


def work(arguments: Sequence[str]) -> NoReturn:
    """The command line in one of the processes: as `unet-edge`, but failures go into the folder.

    Raises:
        SystemExit: always.
    """
    from unet_edge.cli import main

    folder = Path(os.environ[FAILURES])
    final = [failure for failure in _failures(folder) if failure.kind == "ours"]
    if final:
        sys.exit(final[0].exit_code)  # what the user has to cure fails every time
    parent = os.getppid()
    threading.Thread(target=_follow, args=(parent,), daemon=True).start()
    try:
        sys.exit(main(list(arguments), prog_name="unet-edge", standalone_mode=False))
    except click.ClickException as error:
        lost = isinstance(error.__context__, PeerLostError)
        kind, message, exit_code = "lost" if lost else "ours", error.format_message(), error.exit_code
    except (Exception, KeyboardInterrupt):
        kind, message, exit_code = "crash", traceback.format_exc(), 1
    if os.getppid() == parent:
        _record(folder, kind, message, exit_code)
    else:
        click.echo(message, err=True)  # nobody is left to tell it
    sys.exit(exit_code)


def _environment(processes: int, folder: str, environment: Mapping[str, str]) -> dict[str, str]:
    """What the processes are told; what the user has set stays."""
    wanted = {
        "OMP_NUM_THREADS": str(max(1, usable_cores() // processes)),
        "GLOO_SOCKET_IFNAME": "lo0" if sys.platform == "darwin" else "lo",  # no other machine can listen in
        "TORCH_CPP_LOG_LEVEL": "ERROR",  # sockets that close when a process ends
        "TORCH_ELASTIC_SHUTDOWN_TIMEOUT": str(STOP_SECONDS),
    }
    return {FAILURES: folder, **{name: value for name, value in wanted.items() if name not in environment}}


def _launch_config(processes: int, restarts: int, folder: str) -> Any:
    from torch.distributed.elastic.multiprocessing import DefaultLogsSpecs
    from torch.distributed.launcher.api import LaunchConfig

    values: dict[str, Any] = {
        "min_nodes": 1,
        "max_nodes": 1,
        "nproc_per_node": processes,
        "run_id": uuid.uuid4().hex,
        "rdzv_backend": "c10d",
        "rdzv_endpoint": "localhost:0",
        "local_addr": "localhost",
        "max_restarts": restarts,
        "logs_specs": DefaultLogsSpecs(log_dir=folder),
        "signals_to_handle": "SIGTERM,SIGINT",  # SIGHUP too would undo nohup
    }
    known = {field.name for field in fields(LaunchConfig)}  # the last one is younger than torch 2.6
    return LaunchConfig(**{name: value for name, value in values.items() if name in known})


def _cause(failures: Sequence[Failure], killed: Mapping[int, Any], processes: int, cure: str) -> click.ClickException:
    """The first failure that no other one caused, as an error for the user."""
    first = min(failures, key=lambda failure: (failure.kind == "lost", failure.time), default=None)
    if killed and (first is None or first.kind == "lost"):
        rank, code = min((rank, failure.exitcode) for rank, failure in killed.items())
        name = signal.Signals(-code).name
        reason = " (often by the system, when memory is used up)" if name == "SIGKILL" else ""
        return _error(f"process {rank} of 0..{processes - 1} was ended by {name}{reason}: {cure}", 128 - code)
    if first is None:
        return _error("interrupted", 1)
    if first.kind == "crash":
        click.echo(first.message, err=True, nl=False)
        return _error(f"process {first.rank} of 0..{processes - 1} failed as shown above", first.exit_code)
    return _error(first.message, first.exit_code)


def _error(message: str, exit_code: int) -> click.ClickException:
    error = click.ClickException(message)
    error.exit_code = exit_code  # type: ignore[misc]  # a class variable that click's own subclasses change
    return error


def _record(folder: Path, kind: str, message: str, exit_code: int) -> None:
    attempt, rank = int(os.environ["TORCHELASTIC_RESTART_COUNT"]), int(os.environ["RANK"])
    failure = Failure(attempt, rank, kind, message, exit_code, time.time())
    write_json(folder / f"failure-{attempt}-{rank}.json", asdict(failure))


def _failures(folder: Path) -> list[Failure]:
    """The failures of the last attempt that had any."""
    texts = [path.read_text(encoding="utf-8") for path in folder.glob("failure-*.json")]
    found = [Failure(**json.loads(text)) for text in texts]
    last = max((failure.attempt for failure in found), default=0)
    return [failure for failure in found if failure.attempt == last]


def _follow(parent: int) -> None:
    """Ask this process to stop when the launcher is gone; otherwise it would work on, unseen."""
    while os.getppid() == parent:
        time.sleep(1)
    os.kill(os.getpid(), signal.SIGTERM)


if __name__ == "__main__":
    work(sys.argv[1:])
