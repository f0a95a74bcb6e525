"""Run a U-Net that `unet-edge export` made: image in, mask out, without torch.

from unet_edge_runtime import Segmenter

segmenter = Segmenter.open("model.onnx")
result = segmenter.segment("photo.jpg")
result.save("photo_mask.png")
"""

import os

# Since 1.32 ONNX Runtime reports to its maker, with a device id that it keeps in the home folder, unless this is set
# before it is imported. Where images are private nothing may leave; who wants it can set the variable to 0.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")

from .backend import Backend, load_backend
from .errors import UnetEdgeError
from .image import read_image
from .segmenter import Segmentation, Segmenter
from .spec import ModelSpec

__all__ = ["Backend", "ModelSpec", "Segmentation", "Segmenter", "UnetEdgeError", "load_backend", "read_image"]
