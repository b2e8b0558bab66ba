"""Memory that is freed stays with the process, on a CPU: a step asks for the same sizes as the one before it.

The C library gives the end of its heap back to the system, and every step then waits while the system hands it out
again and fills it with zeros. No number depends on this.
"""

from __future__ import annotations

import ctypes
import os
import sys

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_THRESHOLD = -1, -2, -3  # of glibc's malloc.h
KEPT = {_MMAP_THRESHOLD: 32 * 2**20, _TRIM_THRESHOLD: 2**30, _TOP_PAD: 16 * 2**20}
"""Blocks of up to 32 MiB (the most that is allowed) come from the heap, and up to 1 GiB of it stay when it is free."""


def keep_freed_memory() -> bool:
    """Tell the C library so; False where it is not glibc, or where the environment sets this up itself."""
    own = [name for name in os.environ if name.startswith("MALLOC_") or name == "GLIBC_TUNABLES"]
    if own or not sys.platform.startswith("linux"):
        return False
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (OSError, AttributeError):
        return False
    return all(mallopt(option, value) == 1 for option, value in KEPT.items())
