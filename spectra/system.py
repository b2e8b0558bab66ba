"""Which operating systems the commands run on."""

from __future__ import annotations

import sys


def is_windows() -> bool:
    """Whether this is Windows itself, not Linux inside of it (WSL)."""
    return sys.platform.startswith("win")


UNSUPPORTED = (
    "this does not run on Windows, which has neither the file locks (fcntl, syncing of folders) nor the signals "
    "(SIGHUP) that it needs. It is tested on Linux. Use Linux, or the Windows Subsystem for Linux (WSL 2)."
)
"""What a command says that does not run there."""

UNTESTED = (
    "note: tested on Linux only. On Windows, commands that only read (scan, detect, events) may work; those that write "
    "(plot, report) and training with a monitor do not."
)
"""What a command says that might."""
