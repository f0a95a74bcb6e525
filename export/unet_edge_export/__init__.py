"""Checkpoint in, self-describing artefact out, proven to agree with PyTorch before it takes its name.

from pathlib import Path
from unet_edge_export import export_model

result = export_model(Path("run/best.pth"), "onnx")
print(result.path, result.agreement)
"""

from unet_edge_runtime.tolerance import TOLERANCES, Tolerance

from .exporter import FORMATS, ExportResult, export_model, export_sibling

__all__ = ["FORMATS", "TOLERANCES", "ExportResult", "Tolerance", "export_model", "export_sibling"]
