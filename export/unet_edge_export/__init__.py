"""Checkpoint to self-describing artefact: ONNX and Core ML."""
