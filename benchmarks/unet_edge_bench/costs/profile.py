"""How long each layer takes: measured where the runtime can say, estimated from the plan where it cannot."""

from __future__ import annotations

from pathlib import Path

from unet_edge_runtime.backend import backend_for
from unet_edge_runtime.coreml_plan import ComputePlan
from unet_edge_runtime.errors import BackendError, InputError

from .ask import ask
from .count import check_request
from .layer import LayerTime, Profile, kind_of

__all__ = ["MAX_RUNS", "estimate", "profile"]

MAX_RUNS = 1000
"""ONNX Runtime's profiler keeps a million events, and forgets what comes after."""


def profile(path: Path | str, size: tuple[int, int], threads: int, runs: int, batch: int = 1) -> Profile:
    """Time every layer in a process of its own, after a warm-up, profiled and plain runs taking turns.

    An ONNX file is timed by ONNX Runtime's profiler, optimised as in normal use: convolutions with the activation
    that was fused into them, and the reorders between memory layouts that it adds. A checkpoint is timed by hooks on
    its modules, on the CPU; what passes between a decoder's upsampling and its convolutions is the concatenation.

    Args:
        path: an .onnx or a checkpoint.
        size: (height, width) of the network's input.
        threads: inside one operation.
        runs: timed ones; the median of each layer is kept.
        batch: images.

    Raises:
        InputError: the size, batch, threads or runs are not positive, or more runs than `MAX_RUNS`.
        ModelFileError: there is no such file, or it is of an unknown kind.
        BackendError: the model cannot be run or timed by layers here, or not at that size.
    """
    path = Path(path)
    check_request(path, size, batch)
    if not 1 <= runs <= MAX_RUNS or threads < 1:
        raise InputError(
            f"{path}: {runs} runs on {threads} threads cannot be timed: take 1 to {MAX_RUNS} runs, 1 thread"
        )
    kind = backend_for(path)
    if kind not in ("onnx", "torch"):
        raise BackendError(f"{path}: Core ML does not time layers: estimate them from its compute plan")
    answer = ask("times" if kind == "onnx" else "modules", path, size, batch, threads, runs)
    layers = tuple(
        LayerTime(each["name"], kind_of(each["operation"]), each["ms"], each["bytes"]) for each in answer.pop("layers")
    )
    return Profile(layers, "measured", runs, **answer)


def estimate(plan: ComputePlan, median_ms: float) -> Profile | None:
    """Share a measured whole out as Core ML expects it to be: an estimate, not a measurement.

    Args:
        plan: Core ML's, for the compute units that were timed.
        median_ms: of a whole prediction.

    Returns:
        None where Core ML gives no costs.
    """
    total = sum(operation.cost or 0 for operation in plan.operations)
    if total <= 0:
        return None
    layers = tuple(
        LayerTime(operation.name, kind_of(operation.type), median_ms * (operation.cost or 0) / total)
        for operation in plan.operations
    )
    return Profile(layers, "estimated", 0, median_ms, median_ms)
