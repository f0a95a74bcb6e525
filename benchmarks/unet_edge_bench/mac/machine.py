"""What a Mac says about itself without a password: chip, system, power and heat. Nothing that names a person."""

from __future__ import annotations

import platform
import re
import subprocess
from typing import Any

from unet_edge_bench.machine import load_average, machine_facts

__all__ = ["mac_facts", "power_and_heat"]

_SYSCTL = {
    "chip": "machdep.cpu.brand_string",
    "model": "hw.model",
    "memory_bytes": "hw.memsize",
    "performance_cores": "hw.perflevel0.physicalcpu",
    "efficiency_cores": "hw.perflevel1.physicalcpu",
    # 1 for an Intel Python under Rosetta, which would not measure this chip.
    "translated": "sysctl.proc_translated",
}


def mac_facts() -> dict[str, Any]:
    """Chip, model identifier, cores, memory, macOS and its build, versions; None for what the system does not tell."""
    return {
        **machine_facts(),
        **{name: _number(_output("sysctl", "-n", key)) for name, key in _SYSCTL.items()},
        "macos": platform.mac_ver()[0] or None,
        "build": _output("sw_vers", "-buildVersion"),
        "darwin": platform.release(),
    }


def power_and_heat() -> dict[str, Any]:
    """What slows a Mac down, as far as it can be read without sudo: changes while one measures."""
    battery, settings = _output("pmset", "-g", "batt"), _output("pmset", "-g")
    low_power = re.search(r"lowpowermode\s+(\d)", settings or "")
    source = re.search(r"'([^']+)'", battery or "")
    return {
        "load_average": load_average(),
        "power_source": source[1] if source else None,
        "low_power_mode": low_power[1] == "1" if low_power else None,
        # Lines such as "CPU_Speed_Limit = 100", or a note that nothing was recorded.
        "thermal": (_output("pmset", "-g", "therm") or "").splitlines() or None,
    }


def _output(*command: str) -> str | None:
    try:
        done = subprocess.run(command, capture_output=True, text=True, timeout=10, check=False)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() or None if done.returncode == 0 else None


def _number(text: str | None) -> int | str | None:
    return int(text) if text and text.isdigit() else text
