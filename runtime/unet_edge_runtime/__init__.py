"""Run a U-Net that `unet-edge export` made: image in, mask out, without torch.

from unet_edge_runtime import Segmenter

segmenter = Segmenter.open("model.onnx")
result = segmenter.segment("photo.jpg")
result.save("photo_mask.png")
"""

from .backend import Backend, load_backend
from .errors import UnetEdgeError
from .image import read_image
from .segmenter import Segmentation, Segmenter
from .spec import ModelSpec

__all__ = ["Backend", "ModelSpec", "Segmentation", "Segmenter", "UnetEdgeError", "load_backend", "read_image"]
