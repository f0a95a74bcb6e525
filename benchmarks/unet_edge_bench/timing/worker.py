"""One row's process: opens the model, then does what it is told, one JSON object a line.

    python -m unet_edge_bench.timing.worker

Requests on standard input: `{"do": "describe", "path", "backend", "options"}`, which ends there, or
`{"do": "open", "path", "backend", "options", "threads", "image", "batch", "streams"}`,
`{"do": "first"}`, `{"do": "warm", "seconds"}`, `{"do": "turn", "settle", "seconds", "least"}`, `{"do": "end"}`.
Each gets one answer on standard output, or `{"error": text}`.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from unet_edge_bench.process import answer_stream

if TYPE_CHECKING:
    from unet_edge_runtime.backend import Backend

    from .stages import Job

__all__ = ["Worker", "main", "open_backend", "peak_memory"]


class Worker:
    """A model and the image that it is timed on."""

    job: Job
    backend: Backend

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """Do what a request says."""
        steps: dict[str, Callable[..., dict[str, Any]]] = {
            "describe": self._describe,
            "open": self._open,
            "first": self._first,
            "warm": self._warm,
            "turn": self._turn,
            "end": self._end,
        }
        return steps[request.pop("do")](**request)

    def _describe(self, path: str, backend: str, options: dict[str, Any]) -> dict[str, Any]:
        opened = open_backend(backend, Path(path), options, None)
        return {"spec": opened.spec.to_json(), "proves": opened.proves}

    def _open(
        self,
        path: str,
        backend: str,
        image: str,
        options: dict[str, Any],
        threads: int | None,
        batch: int,
        streams: int,
    ) -> dict[str, Any]:
        started = time.perf_counter_ns()
        backend_class = _import_backend(backend)
        imported = time.perf_counter_ns()
        self.backend = _load(backend, backend_class, Path(path), options, threads)
        loaded = time.perf_counter_ns()
        from unet_edge_runtime.image import read_image
        from unet_edge_runtime.segmenter import Segmenter

        from .stages import Job

        self.job = Job(Segmenter(self.backend), read_image(image), batch, streams)
        spec = self.backend.spec
        return {
            "import_ms": (imported - started) / 1e6,
            "load_ms": (loaded - imported) / 1e6,
            "size": list(self.job.size),
            "image_size": list(self.job.shape),
            "precision": spec.precision,
            "head": spec.head,
            "proves": self.backend.proves,
        }

    def _first(self) -> dict[str, Any]:
        return {"ms": sum(self.job.once())}

    def _warm(self, seconds: float) -> dict[str, Any]:
        warmup = self.job.warm_up(seconds)
        return {"images": warmup.images, "stationary": warmup.stationary}

    def _turn(self, settle: float, seconds: float, least: int) -> dict[str, Any]:
        from .stages import STAGES

        self.job.turn(settle, 1)
        turn = self.job.turn(seconds, least)
        stages = zip(*turn.samples, strict=True)
        return {
            "samples": {
                stage: [round(value, 6) for value in values] for stage, values in zip(STAGES, stages, strict=True)
            },
            "images": turn.images,
            "seconds": turn.seconds,
        }

    def _end(self) -> dict[str, Any]:
        # Core ML lives in a child, whose memory counts once it has ended.
        close = getattr(self.backend, "close", None)
        if close:
            close()
        return {"peak_memory_bytes": peak_memory()}


def peak_memory() -> int | None:
    """Most memory that this process ever held, plus that of its largest child that has ended; None on Windows.

    On Linux VmHWM, because ru_maxrss is inherited from the process that started this one.
    """
    try:
        import resource
    except ImportError:
        return None
    unit = 1 if sys.platform == "darwin" else 1024  # getrusage(2): bytes there, kilobytes here
    children = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * unit
    try:
        lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
        own = next(int(line.split()[1]) * 1024 for line in lines if line.startswith("VmHWM"))
    except (OSError, StopIteration):
        own = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
    return own + children


def main() -> int:
    """Serve until standard input ends."""
    return answer_stream(Worker().answer)


def _import_backend(name: str) -> type[Backend] | None:
    """Import what a backend needs; None where that fails, which opening the model then explains."""
    import importlib

    if ":" in name:
        module, _, attribute = name.partition(":")
        backend_class: type[Backend] = getattr(importlib.import_module(module), attribute)
        return backend_class
    from unet_edge_runtime import backend

    point = next((point for point in backend.entry_points() if point.name == name), None)
    try:
        return point.load() if point else None
    except ImportError:
        return None


def open_backend(name: str, path: Path, options: dict[str, Any], threads: int | None) -> Backend:
    """Open a model with a backend's name, or "module:Class"; errors are those of `load_backend`."""
    return _load(name, _import_backend(name), path, options, threads)


def _load(
    name: str, backend_class: type[Backend] | None, path: Path, options: dict[str, Any], threads: int | None
) -> Backend:
    import inspect

    from unet_edge_runtime.backend import load_backend

    if threads and backend_class and "threads" in inspect.signature(backend_class).parameters:
        options = {"threads": threads, **options}
    if ":" in name and backend_class:
        return backend_class(path, **options)  # type: ignore[call-arg]
    return load_backend(path, name, **options)


if __name__ == "__main__":
    sys.exit(main())
