"""Compare two models operation by operation on one image, and name the first layer that departs, and why."""

from __future__ import annotations

from .compare import compare_layers
from .report import LayerReport, LayerRow

__all__ = ["LayerReport", "LayerRow", "compare_layers"]
