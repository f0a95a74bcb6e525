"""On which device Core ML means to run each operation of a model, and what share of the time it expects of it."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from .coreml_client import TIMEOUT, CoreMLProcess, check_mac
from .errors import BackendError, ModelFileError

__all__ = ["DEVICES", "ComputePlan", "PlannedOperation", "compute_plan", "read_plan"]

DEVICES = {"ane": "Neural Engine", "gpu": "GPU", "cpu": "CPU"}

_CLASSES = {"MLNeuralEngineComputeDevice": "ane", "MLGPUComputeDevice": "gpu", "MLCPUComputeDevice": "cpu"}


@dataclass(frozen=True)
class PlannedOperation:
    """One operation that a device executes.

    Attributes:
        type: such as "conv".
        name: of its first result.
        device: where it is to run: ane, gpu, cpu, or other.
        supported: where it could run.
        cost: its expected share of the whole time, 0..1, or None where Core ML does not say.
    """

    type: str
    name: str
    device: str
    supported: tuple[str, ...]
    cost: float | None


@dataclass(frozen=True)
class ComputePlan:
    """Core ML's intentions for one function. Constants and compressed weights, which nothing executes, are left out.

    Attributes:
        compute_units: what Core ML was allowed to use.
        operations: in order of execution.
    """

    compute_units: str
    operations: tuple[PlannedOperation, ...]

    def count(self, device: str) -> int:
        """Operations on a device."""
        return sum(operation.device == device for operation in self.operations)

    def cost_share(self, device: str) -> float | None:
        """Expected share of the time on a device, 0..1; None where Core ML gave no costs."""
        total = sum(operation.cost or 0 for operation in self.operations)
        on_device = sum(operation.cost or 0 for operation in self.operations if operation.device == device)
        return on_device / total if total > 0 else None

    def to_dict(self) -> dict[str, Any]:
        """Plain data for JSON: the shares of each device, and every operation."""
        devices = [*DEVICES, *sorted({operation.device for operation in self.operations} - set(DEVICES))]
        return {
            "compute_units": self.compute_units,
            "devices": {d: {"operations": self.count(d), "cost_share": self.cost_share(d)} for d in devices},
            "operations": [
                {**asdict(operation), "supported": list(operation.supported)} for operation in self.operations
            ],
        }


def compute_plan(
    package: Path | str, compute_units: str = "ane", function: str = "", timeout: float = TIMEOUT
) -> ComputePlan:
    """Ask Core ML, in a process of its own, how it means to run a package. Needs macOS 14.4.

    Args:
        package: the .mlpackage.
        compute_units: cpu, gpu, ane or all.
        function: its name; the default one if empty.
        timeout: seconds.

    Raises:
        ModelFileError: missing, or Core ML does not take it.
        BackendError: not on macOS, or Core ML failed.
        MissingExtraError: coremltools is not installed.
    """
    package = Path(package)
    if not package.is_dir():
        raise ModelFileError(f"{package}: no such Core ML package")
    check_mac(
        package, "the compute plan needs a Mac (here, `unet-edge lint` applies the known rules of the Neural Engine)"
    )
    with CoreMLProcess(package, compute_units, timeout) as process:
        answer, _ = process.request("plan", function=function)
    return ComputePlan(
        compute_units,
        tuple(PlannedOperation(**{**row, "supported": tuple(row["supported"])}) for row in answer["operations"]),
    )


def read_plan(compiled: Path, compute_units: Any, function: str) -> list[dict[str, Any]]:
    """The rows of a plan, read with coremltools where Core ML runs.

    Args:
        compiled: the .mlmodelc folder; a package would abort the process.
        compute_units: coremltools' enumeration.
        function: its name; the default one if empty.

    Raises:
        BackendError: no ML Program, or no such function.
    """
    # It is not imported with coremltools itself.
    module = importlib.import_module("coremltools.models.compute_plan")
    plan = module.MLComputePlan.load_from_path(path=str(compiled), compute_units=compute_units)
    program = plan.model_structure.program
    if program is None:
        raise BackendError("Core ML sees no ML Program in it")
    functions = program.functions
    name = function or ("main" if "main" in functions else next(iter(functions), ""))
    if name not in functions:
        raise BackendError(f"Core ML sees no function {name!r}, only {', '.join(functions) or 'none'}")
    return [row for operation in _flat(functions[name].block) if (row := _row(plan, operation)) is not None]


def _flat(block: Any) -> Iterator[Any]:
    for operation in block.operations:
        yield operation
        for inner in operation.blocks:
            yield from _flat(inner)


def _row(plan: Any, operation: Any) -> dict[str, Any] | None:
    """None for what no device executes: constants and compressed weights."""
    usage = plan.get_compute_device_usage_for_mlprogram_operation(operation)
    if usage is None:
        return None
    cost = plan.get_estimated_cost_for_mlprogram_operation(operation)
    outputs = operation.outputs
    return {
        # The operation set stands before the type, as in "ios17.conv".
        "type": operation.operator_name.rpartition(".")[2],
        "name": outputs[0].name if outputs else "",
        "device": _device(usage.preferred_compute_device),
        "supported": [_device(device) for device in usage.supported_compute_devices],
        "cost": None if cost is None else float(cost.weight),
    }


def _device(device: Any) -> str:
    return _CLASSES.get(type(device).__name__, "other")
