"""A plan of six operations; two constants, of which Core ML tells nothing."""

import os
from types import SimpleNamespace

from coremltools import ComputeUnit, step

from .compute_device import MLCPUComputeDevice, MLNeuralEngineComputeDevice

# type, device, cost
ROWS = [
    ("const", None, None),
    ("ios16.constexpr_affine_dequantize", None, None),
    ("ios17.cast", "cpu", 0.05),
    ("ios17.conv", "ane", 0.6),
    ("ios17.relu", "ane", None),
    ("ios17.conv", "ane", 0.15),
    ("ios15.reduce_argmax", "cpu", 0.2),
]


class MLComputePlan:
    def __init__(self, units):
        operations = [operation(number, row) for number, row in enumerate(ROWS)]
        functions = {"main": SimpleNamespace(inputs=[], block=SimpleNamespace(operations=operations))}
        self.model_structure = SimpleNamespace(program=SimpleNamespace(functions=functions))
        self.units = units

    @classmethod
    def load_from_path(cls, path, compute_units=ComputeUnit.ALL):
        step(compute_units.name, "plan")
        if not path.endswith(".mlmodelc"):
            os.abort()
        return cls(compute_units)

    def get_compute_device_usage_for_mlprogram_operation(self, operation):
        device = operation.row[1]
        if device is None:
            return None
        if self.units in (ComputeUnit.CPU_ONLY, ComputeUnit.CPU_AND_GPU) or device == "cpu":
            return SimpleNamespace(
                preferred_compute_device=MLCPUComputeDevice(), supported_compute_devices=[MLCPUComputeDevice()]
            )
        both = [MLNeuralEngineComputeDevice(), MLCPUComputeDevice()]
        return SimpleNamespace(preferred_compute_device=both[0], supported_compute_devices=both)

    def get_estimated_cost_for_mlprogram_operation(self, operation):
        cost = operation.row[2]
        return None if cost is None else SimpleNamespace(weight=cost)


def operation(number, row):
    return SimpleNamespace(
        operator_name=row[0], outputs=[SimpleNamespace(name=f"value_{number}")], blocks=[], inputs={}, row=row
    )
