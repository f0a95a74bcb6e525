"""What a Mac makes of a Core ML package, in one JSON file: on all compute units, against the reference interpreter."""

from __future__ import annotations

import datetime
import importlib.metadata
import os
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from unet_edge_export.images import choose_images, load, spread
from unet_edge_export.mil.interpreter import PRECISIONS
from unet_edge_export.package_facts import describe_package
from unet_edge_export.reference_backend import CoreMLReferenceBackend
from unet_edge_runtime.coreml_backend import CoreMLBackend
from unet_edge_runtime.coreml_client import COMPUTE_UNITS, CoreMLProcess, check_mac
from unet_edge_runtime.coreml_plan import compute_plan
from unet_edge_runtime.errors import InputError, UnetEdgeError
from unet_edge_runtime.files import sha256_of, size_of
from unet_edge_runtime.image import image_files
from unet_edge_runtime.scores import Agreement
from unet_edge_runtime.segmenter import Segmentation, Segmenter
from unet_edge_runtime.spec import ModelSpec
from unet_edge_runtime.transform import pad_image, preprocess

from .machine import mac_facts, power_and_heat

if TYPE_CHECKING:
    from numpy.typing import NDArray

__all__ = ["FORMAT", "VERSION", "MacProtocol", "mac_report"]

FORMAT, VERSION = "unet-edge mac report", 1

Pictures = Sequence["NDArray[np.generic]"]
References = dict[str, list[Segmentation]]


@dataclass(frozen=True)
class MacProtocol:
    """How much is measured.

    Attributes:
        images: most images on which outputs are compared; the interpreter takes seconds for each.
        warmup: untimed predictions before the timed ones.
        runs: timed predictions.
        loads: how often the compiled model is loaded again.
        timeout: seconds that one step on a device may take.
    """

    images: int = 4
    warmup: int = 5
    runs: int = 100
    loads: int = 3
    timeout: float = 900.0


def mac_report(
    package: Path,
    images: Path | None = None,
    protocol: MacProtocol | None = None,
    progress: Callable[[str], None] = lambda _: None,
) -> dict[str, Any]:
    """Run a package on every choice of compute units, each in processes of its own. What fails is part of the result.

    Args:
        package: a .mlpackage that unet-edge exported.
        images: folder to compare on; by default a photograph, or made-up images.
        protocol: how much is measured.
        progress: is told what comes next, for people.

    Returns:
        Plain data. `units` has for each of cpu, gpu, ane, all: `status` (ok or failed), `errors` (step -> message),
        and what its steps found: `plan`, `load`, `agreement` with the interpreter in both modes, `latency`.

    Raises:
        BackendError: not on macOS.
        ModelFileError: the package is damaged, or not unet-edge's.
        InputError: no image in the folder, or one cannot be read.
    """
    protocol = protocol or MacProtocol()
    check_mac(package, "run this on a Mac; here, `unet-edge evaluate --backend coreml-ref` computes what the file says")
    facts = describe_package(package)
    spec = ModelSpec.from_dict(facts["spec"], str(package))
    pictures, origin = _pictures(package, spec, images, protocol.images)
    progress("reference interpreter")
    references, seconds = _references(package, pictures)
    started = power_and_heat()
    units = {}
    for choice in COMPUTE_UNITS:
        progress(f"{choice} ({COMPUTE_UNITS[choice]})")
        units[choice] = _Unit(package, choice, protocol).measure(pictures, references)
    return {
        "format": FORMAT,
        "version": VERSION,
        "unet_edge": importlib.metadata.version("unet-edge"),
        "made": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "machine": {**mac_facts(), **_devices(package, protocol.timeout), "before": started, "after": power_and_heat()},
        "model": {"name": package.name, "sha256": sha256_of(package), "bytes": size_of(package), **facts},
        "images": {"count": len(pictures), "origin": origin, "sizes": [list(p.shape[:2]) for p in pictures]},
        "protocol": asdict(protocol),
        "reference": {"backend": CoreMLReferenceBackend.name, "modes": list(references), "seconds": seconds},
        "units": units,
    }


class _Unit:
    """One choice of compute units: its steps in turn, each of which may fail without ending the others."""

    def __init__(self, package: Path, choice: str, protocol: MacProtocol) -> None:
        self.package, self.choice, self.protocol = package, choice, protocol
        self.errors: dict[str, str] = {}

    def measure(self, pictures: Pictures, references: References) -> dict[str, Any]:
        """Placement first, because latency means little without it."""
        plan = self._try("plan", lambda: compute_plan(self.package, self.choice, timeout=self.protocol.timeout))
        found = dict.fromkeys(("plan", "load", "agreement", "latency"))
        found["plan"] = plan.to_dict() if plan else None
        backend = self._try("load", lambda: CoreMLBackend(self.package, self.choice, self.protocol.timeout))
        if backend is not None:
            try:
                found["load"] = self._try("load", lambda: self._load(backend))
                found["agreement"] = self._try("predict", lambda: _agreement(backend, pictures, references))
                found["latency"] = self._try("latency", lambda: self._latency(backend, pictures[0]))
            finally:
                backend.close()
        status = "failed" if self.errors else "ok"
        return {"may_use": COMPUTE_UNITS[self.choice], "status": status, "errors": self.errors, **found}

    def _try(self, step: str, do: Callable[[], Any]) -> Any:
        try:
            return do()
        except (UnetEdgeError, ValueError) as error:
            # One cause is told once: after a death every further step repeats it.
            message = _without_paths(str(error), self.package)
            if message not in self.errors.values():
                self.errors[step] = message
            return None

    def _load(self, backend: CoreMLBackend) -> dict[str, Any]:
        opened = backend.opened
        again = [backend.process.request("load")[0] for _ in range(self.protocol.loads)]
        return {
            "compiled_now": opened["compiled_now"],
            "compile_ms": opened["compile_ms"] if opened["compiled_now"] else None,
            "first_ms": opened["load_ms"],
            "first_native_ms": opened["native_load_ms"],
            "again_ms": [each["load_ms"] for each in again],
            "again_native_ms": [each["native_load_ms"] for each in again],
        }

    def _latency(self, backend: CoreMLBackend, picture: NDArray[np.generic]) -> dict[str, Any]:
        spec = backend.spec
        size = spec.input_size
        x = preprocess(picture, spec)
        if size is None:
            size = tuple(-(-side // spec.multiple) * spec.multiple for side in x.shape[1:])
        assert size is not None
        x = pad_image(x[:, : size[0], : size[1]], size, spec.padding)
        samples = backend.measure(x[None], self.protocol.warmup, self.protocol.runs)
        native = samples["native_ms"]
        return {
            "size": list(size),
            "wall_ms": _timing(samples["wall_ms"]),
            "native_ms": _timing(native) if native else None,
        }


def _pictures(package: Path, spec: ModelSpec, folder: Path | None, limit: int) -> tuple[list[NDArray[np.generic]], str]:
    given = None
    if folder is not None:
        given = spread(image_files(folder), limit)
        if not given:
            raise InputError(f"{folder}: holds no image")
    chosen = choose_images(package, spec, given)
    return [load(image, spec) for image in chosen.images[:limit]], chosen.origin


def _references(package: Path, pictures: Pictures) -> tuple[References, dict[str, float]]:
    """What the interpreter makes of the images, and the seconds it took, by mode."""
    results: References = {}
    seconds = {}
    for mode in PRECISIONS:
        started = time.perf_counter()
        segmenter = Segmenter(CoreMLReferenceBackend(package, mode))
        results[mode] = [segmenter.segment(picture) for picture in pictures]
        seconds[mode] = time.perf_counter() - started
    return results, seconds


def _agreement(backend: CoreMLBackend, pictures: Pictures, references: References) -> dict[str, Any]:
    segmenter = Segmenter(backend)
    ours = [segmenter.segment(picture) for picture in pictures]
    found = {}
    for mode, expected in references.items():
        agreement = Agreement()
        for reference, result in zip(expected, ours, strict=True):
            output = None if backend.spec.head == "classmap" else result.output
            agreement.add(reference.output, output, reference.labels, result.labels)
        largest = max(float(np.abs(reference.output).max()) for reference in expected)
        # JSON has no infinity, which stands for outputs that are none.
        numbers = {
            **agreement.to_dict(),
            "largest_output": largest,
            "finite": bool(np.isfinite(agreement.max_difference)),
        }
        found[mode] = {key: None if value == float("inf") else value for key, value in numbers.items()}
    return found


def _devices(package: Path, timeout: float) -> dict[str, Any]:
    try:
        with CoreMLProcess(package, "cpu", timeout) as process:
            return process.request("devices")[0]
    except UnetEdgeError as error:
        return {"devices": None, "devices_error": _without_paths(str(error), package)}


def _timing(samples: Sequence[float]) -> dict[str, Any]:
    p5, median, p95 = (float(value) for value in np.percentile(samples, [5, 50, 95]))
    return {"median": median, "p5": p5, "p95": p95, "samples": list(samples)}


def _without_paths(message: str, package: Path) -> str:
    """A message that does not tell where its sender keeps files."""
    home = os.path.expanduser("~")  # noqa: PTH111 - Path.home() raises where there is none
    for path, name in ((str(package.resolve()), package.name), (str(package), package.name), (home, "~")):
        message = message.replace(path, name)
    return message
