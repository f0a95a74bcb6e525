"""What each compression of a Core ML package saves and costs, on real images with known masks.

    python benchmarks/compression.py run/best.pth --images photos --masks masks --limit 32 -o benchmarks/COMPRESSION.md

Exports every form of package, runs it through the reference interpreter (which rounds every value to the type that
the package declares for it) and scores it twice: against the masks, and against the labels that PyTorch gives. Images
for calibration are training images of the run. Latency is not in the table: it takes the device.
"""

from __future__ import annotations

import argparse
import tempfile
from collections.abc import Iterator
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np

from unet_edge.checkpoint import read_checkpoint
from unet_edge.data.pairing import Pair, pair_files
from unet_edge.evaluation import segment_pairs
from unet_edge.torch_backend import TorchBackend
from unet_edge_export import export_model
from unet_edge_export.compress import COMPRESSIONS, SMALLEST
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_runtime.errors import AgreementError
from unet_edge_runtime.scores import ConfusionMatrix
from unet_edge_runtime.segmenter import Segmenter

FORMS: dict[str, dict[str, Any]] = {
    "fp32": {"precision": "fp32"},
    "fp16": {},
    **{name: {"compression": name} for name in COMPRESSIONS},
}


@dataclass(frozen=True)
class Row:
    """One package: its size, and its labels against the masks and against PyTorch's labels; or why it is none."""

    name: str
    text: str
    size: int = 0
    truth: ConfusionMatrix | None = None
    agreement: ConfusionMatrix | None = None


def labels_of(segmenter: Segmenter, pairs: list[Pair]) -> tuple[ConfusionMatrix, list[np.ndarray]]:
    """The scores against the masks, and the labels of every image."""
    matrix, labels = ConfusionMatrix(len(segmenter.spec.classes)), []
    for truth, predicted in segment_pairs(segmenter, pairs):
        matrix.add(truth, predicted)
        labels.append(predicted)
    return matrix, labels


def measure(checkpoint: Path, pairs: list[Pair], threads: int) -> Iterator[Row]:
    """PyTorch, then every form of package."""
    model = TorchBackend(checkpoint, device="cpu", threads=threads)
    truth, reference = labels_of(Segmenter(model), pairs)
    yield Row("PyTorch", "the checkpoint, fp32", checkpoint.stat().st_size, truth, agreement(reference, reference))
    for name, options in FORMS.items():
        with tempfile.TemporaryDirectory() as folder:
            path = Path(folder) / "m.mlpackage"
            try:
                size = export_model(checkpoint, "coreml", path, **options).size
            except AgreementError as error:
                yield Row(name, f"refused: {error}")
                continue
            truth, labels = labels_of(Segmenter(CoreMLReferenceBackend(path, threads=threads)), pairs)
        text = COMPRESSIONS[name].text if name in COMPRESSIONS else f"{name} weights and arithmetic"
        yield Row(name, text, size, truth, agreement(reference, labels))


def agreement(reference: list[np.ndarray], labels: list[np.ndarray]) -> ConfusionMatrix:
    """Labels against PyTorch's."""
    matrix = ConfusionMatrix(254)
    for ours, theirs in zip(reference, labels, strict=True):
        matrix.add(ours, theirs)
    return matrix


def table(rows: list[Row], background: int | None) -> Iterator[str]:
    """Lines of Markdown."""
    yield "| package | MB | Dice against the masks | equal labels with PyTorch | Dice with PyTorch's labels | what |"
    yield "|---|---|---|---|---|---|"
    for row in rows:
        if row.truth is None or row.agreement is None:
            yield f"| {row.name} | | | | | {row.text} |"
            continue
        truth = row.truth.mean(row.truth.dice, background)
        same = row.agreement.mean(row.agreement.dice, background)
        yield (
            f"| {row.name} | {row.size / 1e6:.2f} | {truth or 0:.4f} | {row.agreement.pixel_accuracy or 0:.3%} "
            f"| {same or 0:.4f} | {row.text} |"
        )


def about(checkpoint: Path, images: int) -> Iterator[str]:
    """What was measured, and how to do it again."""
    read = read_checkpoint(checkpoint)
    spec, config = read.spec, read.config
    height, width = spec.training_sizes[0]
    packages = " ".join(f"{name} {version(name)}" for name in ("coremltools", "torch", "numpy"))
    yield "Made by `python benchmarks/compression.py CHECKPOINT --images DIR --masks DIR -o benchmarks/COMPRESSION.md`."
    yield ""
    yield (
        f"A U-Net of {config.base_channels} base channels, depth {config.depth}, {config.up}, "
        f"{sum(value.numel() for value in read.weights.values()) / 1e6:.1f} M parameters, {len(spec.classes)} classes, "
        f"{height}x{width} input at scale {spec.scale:g}; {images} validation images, scored at the masks' own size. "
        "Packages ran through the reference interpreter (`coreml-ref`), which proves the file, not a device's "
        f"arithmetic; w8a8 was calibrated on training images. {packages}."
    )
    yield ""
    yield (
        "A model that is trained on after compressing would lose less; nothing here was. Layers with at most "
        f"{SMALLEST} weights stay as they are. Means leave out the background."
    )


def main() -> None:
    """Measure, print and write the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkpoint", type=Path)
    parser.add_argument("--images", type=Path, required=True)
    parser.add_argument("--masks", type=Path, required=True)
    parser.add_argument("--limit", type=int, default=32, help="images, spread over the folder")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("-o", "--output", type=Path)
    options = parser.parse_args()
    pairs, problems = pair_files(options.images, options.masks)
    if problems:
        raise SystemExit("\n".join(problems))
    pairs = pairs[:: max(1, len(pairs) // options.limit)][: options.limit]
    rows = []
    for row in measure(options.checkpoint, pairs, options.threads):
        rows.append(row)
        print(list(table([row], None))[-1], flush=True)
    spec = TorchBackend(options.checkpoint, device="cpu").spec
    lines = ["# What compression of Core ML packages saves and costs", "", *about(options.checkpoint, len(pairs)), ""]
    lines += table(rows, spec.background)
    text = "\n".join(lines) + "\n"
    print(text)
    if options.output:
        options.output.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    main()
