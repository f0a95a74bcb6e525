"""`python -m unet_edge_bench.costs.worker`: the process that `ask` starts.

Requests and answers are those of `process.answer_stream`. ONNX files need ONNX Runtime, checkpoints PyTorch.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

from unet_edge_bench.process import answer_stream
from unet_edge_runtime.errors import BackendError, MissingExtraError

__all__ = ["main"]


def main() -> int:
    """Serve until standard input ends."""
    return answer_stream(_answer)


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    path, size = Path(request["path"]), (request["size"][0], request["size"][1])
    try:
        return _look(request, path, size)
    except MemoryError:
        raise BackendError(
            f"{path}: there is not enough memory for {size[0]}x{size[1]}: choose a smaller size"
        ) from None


def _look(request: dict[str, Any], path: Path, size: tuple[int, int]) -> dict[str, Any]:
    batch, threads, runs = request["batch"], request["threads"], request["runs"]
    if request["do"] == "modules":
        try:
            from .torch_profile import module_times
        except ModuleNotFoundError as error:
            raise MissingExtraError(error.name or "torch", "train", f"timing the layers of {path}") from None

        return module_times(path, size, batch, threads, runs)
    from .onnx_profile import node_shapes, node_times

    return node_shapes(path, size, batch) if request["do"] == "shapes" else node_times(path, size, batch, threads, runs)


if __name__ == "__main__":
    sys.exit(main())
