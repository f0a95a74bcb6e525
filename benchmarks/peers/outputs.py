"""What a runner makes of images, as files: `python outputs.py MODULE:CLASS MODEL THREADS FOLDER IMAGE...`.

Runs in the environment of the runner; the comparison happens elsewhere.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np

from unet_edge_runtime.segmenter import Segmenter


def main(runner: str, model: str, threads: int, folder: Path, images: list[str]) -> None:
    """Write one .npy of the network's output, (K, h, w) float32, for each image, by number."""
    module, _, name = runner.partition(":")
    segmenter = Segmenter(getattr(importlib.import_module(module), name)(Path(model), threads=threads))
    folder.mkdir(parents=True, exist_ok=True)
    for number, image in enumerate(images):
        np.save(folder / f"{number}.npy", segmenter.segment(image).output)


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], int(sys.argv[3]), Path(sys.argv[4]), sys.argv[5:])
