"""Does a peer compute the same? Its outputs on real images against eager PyTorch's, and its masks against the truth."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from environments import call

from unet_edge_bench.process import THREAD_VARIABLES
from unet_edge_bench.timing.plan import Row
from unet_edge_runtime.errors import BackendError
from unet_edge_runtime.image import read_image
from unet_edge_runtime.mask import labels_from_mask, read_mask
from unet_edge_runtime.scores import Agreement, ConfusionMatrix
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.tolerance import FP32, Tolerance
from unet_edge_runtime.transform import postprocess

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["PEER_TOLERANCE", "judge"]

PEER_TOLERANCE = Tolerance(max_logit_difference=1e-2, equal_labels=0.9999)
"""Wider than `FP32`, which our own artefacts must keep: Winograd convolution in fp32 rounds more than direct sums do
(Lavin and Gray, arXiv:1509.09308: F(4x4, 3x3) about ten times as much), and that is a choice, no error. `strict` in the
results says whether `FP32` would have been kept."""

RUNNERS = {
    "onnx": "unet_edge_runtime.onnx_backend:OnnxBackend",
    "torch": "unet_edge.torch_backend:TorchBackend",
}


def judge(
    rows: Sequence[Row], reference: str, spec: ModelSpec, images: Sequence[Path], masks: Mapping[Path, Path]
) -> dict[str, dict[str, Any]]:
    """Run every row's model on all images, each in its own environment, and compare.

    Args:
        rows: with different ids.
        reference: the id of the row that is right.
        spec: of all rows.
        images: to compare on.
        masks: of the images, or empty.

    Returns:
        By id, `agreement` (None for the reference) and `scores` (None without masks), as `build_results` takes them.
        A row that cannot run is one that does not agree.

    Raises:
        BackendError: the reference itself cannot run.
    """
    sizes = [read_image(image).shape[:2] for image in images]
    by_id = {row.id: row for row in rows}
    expected = _outputs(by_id[reference], images)
    truth = [labels_from_mask(read_mask(masks[image]), spec, masks[image]) for image in images if image in masks]
    found = {}
    for row in rows:
        try:
            outputs = expected if row.id == reference else _outputs(row, images)
        except BackendError as error:
            failed = {"reference": reference, "passed": False, "problems": [str(error)]}
            found[row.id] = {"agreement": failed, "scores": None}
            continue
        agreement = None if row.id == reference else _agreement(expected, outputs, spec, sizes, reference)
        scores = _scores(outputs, truth, spec, sizes) if len(truth) == len(images) else None
        found[row.id] = {"agreement": agreement, "scores": scores}
    return found


def _outputs(row: Row, images: Sequence[Path]) -> list[NDArray[np.float32]]:
    script = os.fspath(Path(__file__).with_name("outputs.py"))
    runner = RUNNERS.get(row.backend, row.backend)
    with tempfile.TemporaryDirectory() as folder:
        command = [row.python, script, runner, os.fspath(row.path), str(row.threads), folder]
        env = {**dict.fromkeys(THREAD_VARIABLES, str(row.threads)), **row.env}
        call([*command, *map(os.fspath, images)], env)
        files = [Path(folder) / f"{number}.npy" for number in range(len(images))]
        return [np.load(file, allow_pickle=False) for file in files]


def _agreement(
    expected: Sequence[NDArray[np.float32]],
    outputs: Sequence[NDArray[np.float32]],
    spec: ModelSpec,
    sizes: Sequence[tuple[int, ...]],
    reference: str,
) -> dict[str, Any]:
    agreement, magnitude = Agreement(), 0.0
    for right, output, size in zip(expected, outputs, sizes, strict=True):
        labels = [postprocess(one, spec, (size[0], size[1])) for one in (right, output)]
        agreement.add(right, output, labels[0], labels[1])
        magnitude = max(magnitude, float(np.abs(right).max()))
    problems = PEER_TOLERANCE.at(magnitude).problems(agreement)
    return {
        "reference": reference,
        **agreement.to_dict(),
        "different_pixels": agreement.flipped,
        "strict": not FP32.at(magnitude).problems(agreement),
        "passed": not problems,
        "problems": problems,
    }


def _scores(
    outputs: Sequence[NDArray[np.float32]],
    truth: Sequence[NDArray[np.uint8]],
    spec: ModelSpec,
    sizes: Sequence[tuple[int, ...]],
) -> dict[str, Any]:
    matrix = ConfusionMatrix(len(spec.classes))
    for output, labels, size in zip(outputs, truth, sizes, strict=True):
        matrix.add(labels, postprocess(output, spec, (size[0], size[1])))
    summary = matrix.summary(spec)
    return {"dice": summary["dice"], "iou": summary["iou"]}
