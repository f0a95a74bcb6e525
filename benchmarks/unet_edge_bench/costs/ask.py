"""Have a process of its own look at a model's layers.

A model that needs more memory than there is, or crashes its runtime, takes nothing else with it.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from unet_edge_bench.machine import available_cores
from unet_edge_bench.process import Child
from unet_edge_runtime.errors import BackendError

__all__ = ["ask"]

TIMEOUT = 1800.0
"""Seconds that one look may take: some runs of the largest network on the slowest board."""

_WORKER = "unet_edge_bench.costs.worker"


def ask(do: str, path: Path, size: tuple[int, int], batch: int, threads: int | None = None, runs: int = 1) -> Any:
    """Start `worker`, ask it once, and end it.

    Args:
        do: "shapes" or "times" of an ONNX file, "modules" of a checkpoint.
        path: the model.
        size: (height, width) of the network's input.
        batch: images.
        threads: inside one operation; all cores by default.
        runs: timed ones.

    Raises:
        BackendError: the model cannot be opened or run, does not take that size, or ended its process.
    """
    threads = threads or available_cores()
    with Child(_WORKER, threads) as child:
        try:
            return child.ask(TIMEOUT, do=do, path=str(path), size=size, batch=batch, threads=threads, runs=runs)
        except BackendError as error:
            # How a process ended says nothing of the file it had open.
            message = str(error)
            raise BackendError(message if str(path) in message else f"{path}: {message}") from None
