"""Core ML packages without Core ML: read one, execute its ML Program, check it.

from unet_edge_export.mil import Interpreter, Package

package = Package.open("model.mlpackage")
print([operation.type for operation in package.function().operations])
outputs = Interpreter(package).predict({"image": picture})
"""

from .features import Feature
from .interpreter import Interpreter
from .package import Package
from .program import Function, Operation
from .values import Constant, TensorType

__all__ = ["Constant", "Feature", "Function", "Interpreter", "Operation", "Package", "TensorType"]
