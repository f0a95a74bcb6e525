"""What ONNX Runtime's own profiler says of a graph's nodes: their shapes, and how long each took.

https://onnxruntime.ai/docs/performance/tune-performance/profiling-tools.html
"""

from __future__ import annotations

import json
import os
import re
import statistics
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import onnxruntime

from unet_edge_runtime.errors import BackendError, InputError, ModelFileError
from unet_edge_runtime.spec import METADATA_KEY, ModelSpec

from .count import check_multiple
from .turns import WARMUP, in_turns, whole_run

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["node_shapes", "node_times"]

_KERNEL = "_kernel_time"
_TOKEN = re.compile(r"_token_\d+$")  # makes a name that ONNX Runtime invents unique, differently in each session

Size = tuple[int, int]
Event = dict[str, Any]


def node_shapes(path: Path, size: Size, batch: int) -> dict[str, Any]:
    """Run a file once without any optimisation.

    Returns:
        `nodes` in order, each with name, operation, shapes of inputs (weights included) and outputs, and bytes;
        `runs_a_batch`, how often such a run has to be repeated for the batch.

    Raises:
        InputError: the graph does not take that size.
        ModelFileError: ONNX Runtime cannot load the file.
        BackendError: it cannot run it.
    """
    options = onnxruntime.SessionOptions()
    options.graph_optimization_level = onnxruntime.GraphOptimizationLevel.ORT_DISABLE_ALL
    # A weight that its kernel has repacked is missing from the report.
    options.add_session_config_entry("session.disable_prepacking", "1")
    with tempfile.TemporaryDirectory() as folder:
        session = _open(path, options, Path(folder))
        feeds, repeats = _feeds(session, path, size, batch)
        _run(session, path, feeds)
        events = _split(_events(session), 1, path)[0]
    return {"nodes": [_node(event) for event in events], "runs_a_batch": repeats}


def node_times(path: Path, size: Size, batch: int, threads: int, runs: int) -> dict[str, Any]:
    """Time the nodes of a file as ONNX Runtime optimises it, profiled and plain runs taking turns.

    Returns:
        The fields of `Profile`; its layers' milliseconds have the profiler's resolution of 0.001.

    Raises:
        InputError, ModelFileError, BackendError: as `node_shapes`.
    """
    with tempfile.TemporaryDirectory() as folder:
        plain = _open(path, _options(threads), None)
        profiled = _open(path, _options(threads), Path(folder))
        feeds, repeats = _feeds(plain, path, size, batch)

        def run(is_profiled: bool) -> None:
            for _ in range(repeats):
                _run(profiled if is_profiled else plain, path, feeds)

        walls = in_turns(runs, run)
        events = _events(profiled)
    rounds = _split(events, WARMUP + runs, path)[WARMUP:]
    sums = [sum(event["dur"] for event in each) / 1000 for each in rounds]
    images = _split([event for each in rounds for event in each], runs * repeats, path)
    layers = [_time(column, repeats) for column in zip(*images, strict=True)]
    return {"layers": layers, **whole_run(*walls, sums)}


def _options(threads: int) -> onnxruntime.SessionOptions:
    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = threads
    # The other session's threads would still be spinning when this one's turn comes.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    return options


def _open(path: Path, options: onnxruntime.SessionOptions, profile: Path | None) -> onnxruntime.InferenceSession:
    if not path.is_file():
        raise ModelFileError(f"{path}: no such ONNX file")
    options.log_severity_level = 3
    if profile:
        options.enable_profiling = True
        options.profile_file_prefix = os.fspath(profile / "profile")
    try:
        return onnxruntime.InferenceSession(os.fspath(path), options, providers=["CPUExecutionProvider"])
    # ONNX Runtime raises a dozen classes without a common root below Exception.
    except Exception as error:
        raise ModelFileError(f"{path}: ONNX Runtime cannot load it ({_first_line(error)})") from None


def _feeds(
    session: onnxruntime.InferenceSession, path: Path, size: Size, batch: int
) -> tuple[dict[str, NDArray[np.float32]], int]:
    """A drawn batch, and how many runs make the batch where the graph is fixed at one image."""
    inputs = session.get_inputs()
    shape = inputs[0].shape if len(inputs) == 1 and inputs[0].type == "tensor(float)" else []
    if len(shape) != 4 or not isinstance(shape[1], int):
        raise ModelFileError(f"{path}: does not take one batch of float images: export it with unet-edge")
    fixed = [side if isinstance(side, int) else None for side in shape]
    if any(side not in (None, wanted) for side, wanted in zip(fixed[2:], size, strict=True)):
        raise InputError(
            f"{path}: takes images of {fixed[2] or 'any'}x{fixed[3] or 'any'} only, not {size[0]}x{size[1]}"
        )
    text = session.get_modelmeta().custom_metadata_map.get(METADATA_KEY)
    check_multiple(path, size, ModelSpec.from_json(text, str(path)).multiple if text else 1)
    if fixed[0] not in (None, 1, batch):
        raise InputError(f"{path}: takes batches of {fixed[0]} only, not {batch}")
    images = fixed[0] or batch
    drawn = np.random.default_rng(0).random((images, shape[1], *size), np.float32)
    return {inputs[0].name: drawn}, batch // images


def _run(session: onnxruntime.InferenceSession, path: Path, feeds: dict[str, NDArray[np.float32]]) -> None:
    try:
        session.run(None, feeds)
    except Exception as error:
        raise BackendError(f"{path}: ONNX Runtime failed ({_first_line(error)})") from None


def _events(session: onnxruntime.InferenceSession) -> list[Event]:
    """One a node and run, in order."""
    events = json.loads(Path(session.end_profiling()).read_text(encoding="utf-8"))
    return [event for event in events if event.get("cat") == "Node" and event["name"].endswith(_KERNEL)]


def _split(events: list[Event], count: int, path: Path) -> list[list[Event]]:
    """The events of each run."""
    marks = [round(index * len(events) / count) for index in range(count + 1)]
    rounds = [events[start:end] for start, end in pairwise(marks)]
    if not events or len({tuple(event["name"] for event in each) for each in rounds}) != 1:
        raise BackendError(f"{path}: ONNX Runtime does not report the same nodes of every run, so none can be timed")
    return rounds


def _node(event: Event) -> dict[str, Any]:
    facts = event["args"]
    return {
        "name": _TOKEN.sub("", event["name"].removesuffix(_KERNEL)),
        "operation": facts["op_name"],
        "inputs": _shapes(facts["input_type_shape"]),
        "outputs": _shapes(facts["output_type_shape"]),
        "input_bytes": int(facts["activation_size"]),
        "output_bytes": int(facts["output_size"]),
        "weight_bytes": int(facts["parameter_size"]),
    }


def _shapes(reported: list[dict[str, list[int]]]) -> list[list[int]]:
    """Out of [{"float": [1, 3, 64, 64]}, ...]."""
    return [shape for each in reported for shape in each.values()]


def _time(events: tuple[Event, ...], repeats: int) -> dict[str, Any]:
    """A node's median over the runs, of a batch."""
    node = _node(events[0])
    size = (node["input_bytes"] + node["output_bytes"] + node["weight_bytes"]) * repeats
    ms = statistics.median(event["dur"] for event in events) / 1000 * repeats
    return {"name": node["name"], "operation": node["operation"], "ms": ms, "bytes": size}


def _first_line(error: Exception) -> str:
    return str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
