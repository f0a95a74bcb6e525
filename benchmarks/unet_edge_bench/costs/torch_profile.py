"""Time a checkpoint's modules with hooks."""

from __future__ import annotations

import contextlib
import statistics
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from torch import Tensor, nn

from unet_edge.torch_backend import TorchBackend

from .count import check_multiple
from .turns import WARMUP, in_turns, whole_run

__all__ = ["exported_names", "module_times"]


def module_times(path: Path, size: tuple[int, int], batch: int, threads: int, runs: int) -> dict[str, Any]:
    """Time the modules of a checkpoint on the CPU, hooked and plain runs taking turns.

    Returns:
        The fields of `Profile`.

    Raises:
        ModelFileError: as `TorchBackend`.
        InputError: the network does not take that size.
    """
    backend = TorchBackend(path, device="cpu", threads=threads)
    check_multiple(path, size, backend.spec.multiple)
    x = np.random.default_rng(0).random((batch, backend.spec.channels, *size), np.float32)
    rounds: list[list[dict[str, Any]]] = []

    def run(is_hooked: bool) -> None:
        with contextlib.ExitStack() as stack:
            if is_hooked:
                rounds.append(stack.enter_context(_hooks(backend.model)))
            backend.run(x)

    walls = in_turns(runs, run)
    sums = [sum(event["ms"] for event in each) for each in rounds[WARMUP:]]
    layers = [_median(column) for column in zip(*rounds[WARMUP:], strict=True)]
    return {"layers": layers, **whole_run(*walls, sums)}


def exported_names(model: nn.Module) -> dict[nn.Module, str]:
    """Leaf modules by the names that their layers have in an export, where batch norm is folded away.

    Leaving a batch norm out moves those behind it up: milesial's `double_conv.3` is `double_conv.2` there. A batch
    norm is called after the convolution that takes it in, such as `double_conv.0.norm`.
    """
    names: dict[nn.Module, str] = {}
    for path, parent in model.named_modules():
        place, norms = "", 0
        for name, child in parent.named_children():
            prefix = f"{path}." if path else ""
            if isinstance(child, nn.BatchNorm2d):
                names[child], norms = f"{place}.norm", norms + 1
                continue
            place = prefix + (str(int(name) - norms) if name.isdigit() else name)
            if not any(child.children()):
                names[child] = place
    return names


@contextlib.contextmanager
def _hooks(model: nn.Module) -> Iterator[list[dict[str, Any]]]:
    """Yield a list that fills with one event a leaf module that runs."""
    recorder = _Recorder(exported_names(model))
    with contextlib.ExitStack() as stack:
        for module in recorder.names:
            for handle in (
                module.register_forward_pre_hook(recorder.before),
                module.register_forward_hook(recorder.after),
            ):
                stack.callback(handle.remove)
        yield recorder.events


class _Recorder:
    def __init__(self, names: dict[nn.Module, str]) -> None:
        self.names = names
        self.events: list[dict[str, Any]] = []
        self.upsampled: tuple[str, int] | None = None
        self.started = 0

    def before(self, module: nn.Module, inputs: tuple[Tensor, ...]) -> None:
        now = time.perf_counter_ns()
        if self.upsampled:
            # No module concatenates, and nothing else happens here.
            (block, ended), size = self.upsampled, 2 * _bytes(*inputs)
            self.events.append({"name": f"{block}.cat", "operation": "cat", "ms": (now - ended) / 1e6, "bytes": size})
            self.upsampled = None
        self.started = time.perf_counter_ns()

    def after(self, module: nn.Module, inputs: tuple[Tensor, ...], output: Tensor) -> None:
        ms = (time.perf_counter_ns() - self.started) / 1e6
        name, size = self.names[module], _bytes(*inputs, output, *module.parameters(), *module.buffers())
        self.events.append({"name": name, "operation": type(module).__name__, "ms": ms, "bytes": size})
        if name.endswith(".up"):
            self.upsampled = (name.removesuffix(".up"), time.perf_counter_ns())


def _median(column: tuple[dict[str, Any], ...]) -> dict[str, Any]:
    return {**column[0], "ms": statistics.median(event["ms"] for event in column)}


def _bytes(*tensors: Tensor) -> int:
    return sum(tensor.numel() * tensor.element_size() for tensor in tensors)
