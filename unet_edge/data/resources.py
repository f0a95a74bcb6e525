"""How many cores and how much memory this process may really use, inside a container too."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

__all__ = ["free_memory", "local_processes", "usable_cores"]

CGROUPS = Path("/sys/fs/cgroup")
PROC = Path("/proc")
GUESS = 4 << 30  # bytes of free memory where the system does not tell


def usable_cores(cgroups: Path = CGROUPS, proc: Path = PROC) -> int:
    """Cores that this process may keep busy: its affinity, and the quota of its control groups, rounded up.

    Args:
        cgroups: where control groups are mounted; version 2 has `cpu.max`, version 1 `cpu/.../cpu.cfs_*`.
        proc: where /proc is.
    """
    count = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    for group in _groups(cgroups, proc):
        words = _words(group / "cpu.max") or [*_words(group / "cpu.cfs_quota_us"), *_words(group / "cpu.cfs_period_us")]
        if len(words) == 2 and all(word.isdecimal() and int(word) for word in words):  # "max" and -1 are no limit
            count = min(count, max(1, -(-int(words[0]) // int(words[1]))))
    return count


def free_memory(cgroups: Path = CGROUPS, proc: Path = PROC) -> int:
    """Bytes that this process can still take: free in the machine, and below the limits of its control groups."""
    free = _machine_memory(proc)
    for group in _groups(cgroups, proc):
        limit = _words(group / "memory.max") or _words(group / "memory.limit_in_bytes")
        used = _words(group / "memory.current") or _words(group / "memory.usage_in_bytes")
        if limit and used and limit[0].isdecimal() and used[0].isdecimal():
            # Files that were read count as used, and are given up as soon as memory is short. Version 1 counts those of
            # the groups within only in what is called total.
            stat = group / "memory.stat"
            droppable = _entry(stat, "total_inactive_file") or _entry(stat, "inactive_file")
            free = min(free, max(0, int(limit[0]) - int(used[0]) + droppable))
    return free


def local_processes() -> int:
    """Processes that train on this machine together, as torch's launcher says; otherwise 1."""
    text = os.environ.get("LOCAL_WORLD_SIZE", "")
    return max(1, int(text)) if text.isdecimal() else 1


def _machine_memory(proc: Path) -> int:
    if available := _entry(proc / "meminfo", "MemAvailable:"):
        return available * 1024
    try:
        return os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE") // 2
    except (AttributeError, ValueError, OSError):
        return GUESS


def _groups(cgroups: Path, proc: Path) -> Iterator[Path]:
    """Folders of this process's control groups, and of all that hold them.

    In a container with a name space of its own the path is "/"; where it shows the host's path, only the root
    exists, which is then the container's own.
    """
    for line in _text(proc / "self" / "cgroup").splitlines():
        _, names, path = (line + "::").split(":")[:3]
        for name in names.split(","):
            if name in ("", "cpu", "memory"):
                inner = cgroups / name / path.lstrip("/")
                base = cgroups / name
                yield from [folder for folder in (inner, *inner.parents) if folder.is_relative_to(base)]


def _entry(path: Path, name: str) -> int:
    for line in _text(path).splitlines():
        words = line.split()
        if len(words) > 1 and words[0] == name and words[1].isdecimal():
            return int(words[1])
    return 0


def _words(path: Path) -> list[str]:
    return _text(path).split()


def _text(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8", errors="replace")
    except OSError:
        return ""
