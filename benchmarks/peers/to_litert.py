"""Checkpoint to LiteRT, in its environment: `python to_litert.py CHECKPOINT HEIGHT WIDTH OUTPUT`."""

from __future__ import annotations

import sys

import torch

from unet_edge.checkpoint import read_checkpoint
from unet_edge_export.graph import ExportGraph


def main(checkpoint: str, height: int, width: int, output: str) -> None:
    """Write a .tflite file: NHWC at its edges, which is LiteRT's own layout."""
    import litert_torch

    loaded = read_checkpoint(checkpoint)
    graph = litert_torch.to_channel_last_io(ExportGraph(loaded.build(), loaded.spec), args=[0], outputs=[0])
    example = torch.zeros(1, height, width, loaded.spec.channels)
    litert_torch.convert(graph.eval(), (example,)).export(output)


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
