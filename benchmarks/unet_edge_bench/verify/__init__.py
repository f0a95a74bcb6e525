"""Do models agree? Run, or load what ran elsewhere; compare on real images; say why not.

from pathlib import Path
from unet_edge_bench.verify import Model, compare, samples_of

photos = sorted(Path("photos").glob("*.jpg"))
result = compare(Model.open(Path("best.pth")), [Model.open(Path("best.onnx"))], samples_of(photos))
print(result.passed, result.pairs[0].problems, result.pairs[0].reasons)
"""

from __future__ import annotations

from .compare import Overrides, compare
from .recording import Recording, collect, record
from .report import ImageReport, PairReport, Verification
from .saved import SavedOutputs, common_samples
from .sides import Model, Output, Sample, Side, samples_of

__all__ = [
    "ImageReport",
    "Model",
    "Output",
    "Overrides",
    "PairReport",
    "Recording",
    "Sample",
    "SavedOutputs",
    "Side",
    "Verification",
    "collect",
    "common_samples",
    "compare",
    "record",
    "samples_of",
]
