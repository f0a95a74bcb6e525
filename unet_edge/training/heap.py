"""Memory that a training step gave back stays with the process, which needs it again a moment later."""

from __future__ import annotations

import ctypes
import os
import platform

__all__ = ["keep_freed_memory"]

# From glibc's malloc.h, which promises their values to compiled programs.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
NEVER = -1
LARGEST = 32 << 20  # bytes; malloc's own limit for what it keeps in its heap (DEFAULT_MMAP_THRESHOLD_MAX)


def keep_freed_memory() -> bool:
    """Tell glibc's malloc not to hand its heap's free end back to the system, for the rest of the process.

    It otherwise returns activations after every step, and the system clears each page anew when the next one asks for
    it. The most memory that is taken stays the same. Larger blocks than those of the heap, each of which is the
    system's own, are still returned: kept, they leave so many gaps that a third more memory is needed.

    Source: https://man7.org/linux/man-pages/man3/mallopt.3.html

    Returns:
        Whether that was done: not where the C library is another one, nor where the environment governs malloc.
    """
    if platform.libc_ver()[0] != "glibc" or any(name.startswith(("MALLOC_", "GLIBC_TUNABLES")) for name in os.environ):
        return False
    mallopt = ctypes.CDLL(None).mallopt
    return bool(mallopt(M_MMAP_THRESHOLD, LARGEST) and mallopt(M_TRIM_THRESHOLD, NEVER))
