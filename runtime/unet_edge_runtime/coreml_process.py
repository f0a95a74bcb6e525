"""`python -m unet_edge_runtime.coreml_process`: the child that opens and runs a package with Core ML.

Questions come on standard input, answers go to what standard output was; whatever else is printed goes to standard
error. It ends when its input does.
"""

from __future__ import annotations

import importlib
import os
import platform
import signal
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from PIL import Image

from .coreml_cache import CompiledModels
from .coreml_plan import read_plan
from .coreml_wire import Message, receive, send
from .errors import BackendError, ModelFileError, UnetEdgeError
from .files import cache_folder

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["Session", "main"]

_UNITS = {"cpu": "CPU_ONLY", "gpu": "CPU_AND_GPU", "ane": "CPU_AND_NE", "all": "ALL"}


class _MissingError(Exception):
    """A package that is not installed."""


class Session:
    """One package on some compute units. Every public method answers a question of `CoreMLProcess`.

    Args:
        package: the .mlpackage.
        compute_units: cpu, gpu, ane or all.

    Raises:
        _MissingError: coremltools is not installed.
        BackendError: it is, and cannot be imported.
    """

    def __init__(self, package: str, compute_units: str) -> None:
        self.package = Path(package)
        try:
            self._ct: Any = importlib.import_module("coremltools")
        except ModuleNotFoundError as error:
            raise _MissingError((error.name or "coremltools").partition(".")[0]) from None
        except Exception as error:
            raise BackendError(f"coremltools cannot be imported ({_line(error)}): install it again") from None
        self._units = self._ct.ComputeUnit[_UNITS[compute_units]]
        system = f"coremltools {self._ct.__version__} macOS {platform.mac_ver()[0]} {platform.machine()}"
        # The kernel's version tells builds of a beta apart.
        self._cache = CompiledModels(cache_folder() / "coreml", f"{system} {platform.release()}")
        self._compiled: Path | None = None
        self._models: dict[str, Any] = {}

    def open(self) -> Message:
        """Read the description, compile where needed, and load the default function.

        Raises:
            ModelFileError: unreadable, or Core ML cannot compile it.
            BackendError: Core ML cannot load it.
        """
        try:
            description = self._ct.models.utils.load_spec(str(self.package)).description
            facts = {
                "metadata": dict(description.metadata.userDefined),
                "default": description.defaultFunctionName,
                "functions": _functions(description),
            }
        # Protobuf, the package reader and the file system each raise their own.
        except Exception as error:
            raise ModelFileError(
                f"{self.package}: not a readable Core ML package ({_line(error)}): export it again"
            ) from None
        started = time.perf_counter_ns()
        _, fresh = self._compile()
        compiled = time.perf_counter_ns()
        loaded = self.load()[0]
        return {**facts, **loaded, "compiled_now": fresh, "compile_ms": (compiled - started) / 1e6}, []

    def load(self, function: str = "") -> Message:
        """Load a function, also where it is loaded already; tells how long that took.

        Raises:
            ModelFileError: Core ML cannot compile the package.
            BackendError: Core ML cannot load it.
        """
        path, fresh = self._compile()
        started = time.perf_counter_ns()
        try:
            model = self._load(path, function)
        except Exception as error:
            if fresh:
                raise self._cannot("load", error) from None
            # What the cache held did not help: make it anew, once.
            path, _ = self._compile(again=True)
            started = time.perf_counter_ns()
            try:
                model = self._load(path, function)
            except Exception as second:
                raise self._cannot("load", second) from None
        took = (time.perf_counter_ns() - started) / 1e6
        self._models[function] = model
        return {"load_ms": took, "native_load_ms": _native(model, "load_duration_in_nano_seconds")}, []

    def predict(
        self, array: NDArray[np.generic], function: str, input_name: str, output_name: str, image: bool
    ) -> Message:
        """Run once; the answer has the output as an array.

        Args:
            array: (1, C, H, W) float32, or for a picture (H, W) or (H, W, 3) uint8.
            function: its name, or "".
            input_name: of the function.
            output_name: likewise.
            image: the input is a picture.

        Raises:
            BackendError: Core ML failed.
        """
        model, value = self._model(function), _value(array, image)
        # Core ML raises RuntimeError, coremltools whatever it meets.
        try:
            outputs = model.predict({input_name: value})
        except Exception as error:
            raise self._cannot("run", error) from None
        if output_name not in outputs:
            raise ModelFileError(
                f"{self.package}: returned {', '.join(outputs)}, its spec says {output_name}: export it again"
            )
        return {}, [np.asarray(outputs[output_name])]

    def measure(
        self, array: NDArray[np.generic], function: str, input_name: str, image: bool, warmup: int, runs: int
    ) -> Message:
        """Time predictions, without the pipe.

        Args:
            array: as for `predict`.
            function: its name, or "".
            input_name: of the function.
            image: the input is a picture.
            warmup: untimed predictions before.
            runs: timed ones.

        Returns:
            `wall_ms` around coremltools' call, and `native_ms` inside Core ML, None where it does not tell.

        Raises:
            BackendError: Core ML failed.
        """
        model, value = self._model(function), _value(array, image)
        wall: list[float] = []
        native: list[float | None] = []
        try:
            for number in range(warmup + runs):
                started = time.perf_counter_ns()
                model.predict({input_name: value})
                took = (time.perf_counter_ns() - started) / 1e6
                if number >= warmup:
                    wall.append(took)
                    native.append(_native(model, "last_predict_duration_in_nano_seconds"))
        except Exception as error:
            raise self._cannot("run", error) from None
        return {"wall_ms": wall, "native_ms": None if None in native else native}, []

    def plan(self, function: str = "") -> Message:
        """The rows of the compute plan.

        Raises:
            ModelFileError: Core ML cannot compile the package.
            BackendError: Core ML makes no plan.
        """
        path, _ = self._compile()
        try:
            return {"operations": read_plan(path, self._units, function)}, []
        except Exception as error:
            raise BackendError(
                f"{self.package}: Core ML makes no compute plan ({_line(error)}): it needs macOS 14.4 or later"
            ) from None

    def devices(self) -> Message:
        """The Mac's compute devices, and the cores of its Neural Engine.

        Raises:
            BackendError: this macOS does not tell.
        """
        module = importlib.import_module("coremltools.models.compute_device")
        try:
            devices = module.MLComputeDevice.get_all_compute_devices()
            kinds = [type(device).__name__.removeprefix("ML").removesuffix("ComputeDevice") for device in devices]
            cores = [getattr(device, "total_core_count", None) for device in devices]
        except Exception as error:
            raise BackendError(f"Core ML lists no devices ({_line(error)}): it needs macOS 14 or later") from None
        found = [{"kind": kind, "cores": count} for kind, count in zip(kinds, cores, strict=True)]
        return {"devices": found, "coremltools": self._ct.__version__}, []

    def _compile(self, again: bool = False) -> tuple[Path, bool]:
        if self._compiled is not None and not again:
            return self._compiled, False
        compile_model = self._ct.models.utils.compile_model
        try:
            self._compiled, fresh = self._cache.get(
                self.package, lambda target: compile_model(str(self.package), str(target)), again
            )
        except Exception as error:
            raise ModelFileError(
                f"{self.package}: Core ML cannot compile it ({_line(error)}): export it again, for this macOS or older"
            ) from None
        return self._compiled, fresh

    def _load(self, path: Path, function: str) -> Any:
        return self._ct.models.CompiledMLModel(str(path), compute_units=self._units, function_name=function or None)

    def _model(self, function: str) -> Any:
        if function not in self._models:
            self.load(function)
        return self._models[function]

    def _cannot(self, what: str, error: Exception) -> BackendError:
        return BackendError(f"{self.package}: Core ML cannot {what} it on {self._units.name} ({_line(error)})")


def main() -> int:
    """Answer questions until there are no more."""
    # Ctrl-C reaches the whole group; the parent decides what it means.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Frameworks print to file descriptor 1, behind Python's back: the answers get a private copy of it.
    with os.fdopen(os.dup(1), "wb") as answers:
        os.dup2(2, 1)
        sys.stdout = sys.stderr
        session: Session | None = None
        while True:
            try:
                question, arrays = receive(sys.stdin.buffer)
            except EOFError:
                return 0
            package, units, do = (question.pop(key) for key in ("package", "compute_units", "do"))
            try:
                session = session or Session(package, units)
                send(answers, *getattr(session, do)(*arrays, **question))
            except _MissingError as error:
                send(answers, {"error": "MissingExtraError", "package": str(error)})
            except UnetEdgeError as error:
                send(answers, {"error": type(error).__name__, "message": str(error)})
            except BrokenPipeError:
                return 0


def _functions(description: Any) -> dict[str, dict[str, Any]]:
    """Function -> its inputs and outputs as [name, kind]; "" is the function of a package that names none."""
    owners = {each.name: each for each in description.functions} or {"": description}
    return {
        name: {
            "inputs": [[value.name, value.type.WhichOneof("Type")] for value in owner.input],
            "outputs": [[value.name, value.type.WhichOneof("Type")] for value in owner.output],
        }
        for name, owner in owners.items()
    }


def _value(array: NDArray[np.generic], image: bool) -> Any:
    # Core ML takes pictures as PIL images of the input's mode only: "L" or "RGB", which for BGR is right too.
    return Image.fromarray(array) if image else array


def _native(model: Any, name: str) -> float | None:
    """A duration that Core ML measured itself, in ms: a property of MLModel, of CompiledMLModel only its proxy's."""
    try:
        value = getattr(model, name, None)
        if value is None:
            value = getattr(model._proxy, f"get_{name}")()
        return None if value is None else float(value) / 1e6
    except (AttributeError, TypeError, ValueError):
        return None


def _line(error: Exception) -> str:
    text = str(error).strip()
    return text.splitlines()[0][:300] if text else type(error).__name__


if __name__ == "__main__":
    sys.exit(main())
