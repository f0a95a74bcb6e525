"""Checkpoint to ExecuTorch, in its environment: `python to_executorch.py CHECKPOINT HEIGHT WIDTH OUTPUT`."""

from __future__ import annotations

import sys
from pathlib import Path

import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge_export.graph import ExportGraph


def main(checkpoint: str, height: int, width: int, output: str) -> None:
    """Write a .pte file with everything that XNNPACK takes handed to XNNPACK."""
    from executorch.backends.xnnpack.partition.xnnpack_partitioner import XnnpackPartitioner
    from executorch.exir import to_edge_transform_and_lower

    loaded = read_checkpoint(checkpoint)
    example = torch.zeros(1, loaded.spec.channels, height, width)
    program = torch.export.export(ExportGraph(loaded.build(), loaded.spec), (example,))
    lowered = to_edge_transform_and_lower(program, partitioner=[XnnpackPartitioner()])
    Path(output).write_bytes(lowered.to_executorch().buffer)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
