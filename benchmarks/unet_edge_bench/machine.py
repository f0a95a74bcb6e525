"""Where something was measured: facts that matter for time and for rounding, and none that name a person."""

from __future__ import annotations

import importlib.metadata
import os
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

__all__ = ["available_cores", "load_average", "machine_facts", "machine_state", "machine_text", "physical_cores"]

PACKAGES = ("unet-edge", "torch", "onnx", "onnxscript", "onnxruntime", "coremltools", "numpy", "pillow")


def machine_facts() -> dict[str, Any]:
    """System, processor, cores, Python and the versions of the packages that take part, as plain data."""
    return {
        "system": platform.system(),
        "machine": platform.machine(),
        "processor": _processor(),
        "cores": available_cores(),
        "python": platform.python_version(),
        "packages": {name: version for name in PACKAGES if (version := _version(name))},
    }


def machine_text(facts: Mapping[str, Any]) -> str:
    """Processor, cores and memory in words, of what `machine_facts` and `machine_state` found; without the unknown."""
    cores, memory = facts.get("cores"), facts.get("memory_bytes")
    parts = [
        facts.get("processor") or facts.get("machine"),
        f"{cores} core{'s' if cores > 1 else ''}" if cores else None,
        f"{memory / 2**30:.0f} GiB" if memory else None,
    ]
    return ", ".join(part for part in parts if part)


def available_cores() -> int:
    """Cores that this process may use."""
    if hasattr(os, "sched_getaffinity"):  # not on macOS
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def load_average() -> float | None:
    """Processes that wanted a core in the last minute, ours included; None where the system does not say."""
    return os.getloadavg()[0] if hasattr(os, "getloadavg") else None


def machine_state() -> dict[str, Any]:
    """What else decides on speed: physical cores, memory, and what limits the clock; None where nothing is said.

    `governor` is Linux's policy for the clock of the first core; `power` what macOS tells about battery and heat.
    """
    power = None
    if platform.system() == "Darwin":
        from .mac.machine import power_and_heat

        power = power_and_heat()
    governor = _text("/sys/devices/system/cpu/cpu0/cpufreq/scaling_governor")
    return {"physical_cores": physical_cores(), "memory_bytes": _memory(), "governor": governor, "power": power}


def physical_cores() -> int:
    """Cores that this process may use, two that share their arithmetic (hyper-threads) counted once."""
    if not hasattr(os, "sched_getaffinity"):
        return available_cores()
    topology = "/sys/devices/system/cpu/cpu{}/topology/thread_siblings_list"
    return len({_text(topology.format(cpu)) or str(cpu) for cpu in os.sched_getaffinity(0)})


def _memory() -> int | None:
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (AttributeError, ValueError, OSError):
        return None


def _text(path: str) -> str | None:
    try:
        return Path(path).read_text(encoding="utf-8").strip() or None
    except OSError:
        return None


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
    except OSError:
        return platform.processor()
    names = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
