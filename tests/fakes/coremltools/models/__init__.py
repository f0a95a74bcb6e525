import json
from pathlib import Path

import numpy as np

from coremltools import ComputeUnit, step

from . import compute_device, compute_plan, utils  # noqa: F401


class CompiledMLModel:
    def __init__(
        self,
        path,
        compute_units=ComputeUnit.ALL,
        function_name=None,
        optimization_hints=None,
        asset=None,
    ):
        if not isinstance(path, str) or not path.endswith(".mlmodelc"):
            raise TypeError('The "path" parameter must be of type "str".')
        if not isinstance(compute_units, ComputeUnit) or not isinstance(function_name or "", str):
            raise TypeError("parameters of the wrong type")
        import onnxruntime

        step(compute_units.name, "load")
        described = json.loads((Path(path) / "fake.json").read_text())
        self.function = described["functions"][function_name or described["default"]]
        self.units = compute_units.name
        self.session = onnxruntime.InferenceSession((Path(path) / "model").read_bytes())
        self._proxy = Proxy()

    def predict(self, data, state=None):
        if type(data) is not dict:
            raise TypeError('"data" parameter must be either a dict or list of dict')
        step(self.units, "predict")
        ((name, kind, height, width),) = self.function["inputs"]
        assert list(data) == [name]
        value = planes(data[name], kind)
        if value.shape[2:] != (height, width):
            raise RuntimeError(f"MultiArray shape {value.shape} does not match the shape specified in the model")
        logits = self.session.run(None, {self.session.get_inputs()[0].name: value})[0]
        return {self.function["outputs"][0][0]: shaped(logits, self.function.get("returns"))}


class Proxy:
    def get_load_duration_in_nano_seconds(self):
        return 5_000_000

    def get_last_predict_duration_in_nano_seconds(self):
        return 1_500_000


def planes(value, kind):
    """(1, C, H, W) float32 of what Core ML would accept."""
    from PIL import Image

    if kind == "imageType":
        if not isinstance(value, Image.Image) or value.mode not in ("RGB", "L"):
            raise TypeError("value must be a PIL image of mode RGB or L")
        pixels = np.asarray(value, np.float32)
        return np.ascontiguousarray(np.moveaxis(np.atleast_3d(pixels), 2, 0)[None] / np.float32(255))
    if not isinstance(value, np.ndarray) or value.dtype != np.float32:
        raise TypeError("value must be a float32 array")
    return np.ascontiguousarray(value)


def shaped(logits, returns):
    from PIL import Image

    labels = logits[0].argmax(0)
    if returns == "picture":
        return Image.fromarray((labels * 255).astype(np.uint8))
    return labels.astype(np.int32) if returns == "labels" else logits.astype(np.float32)
