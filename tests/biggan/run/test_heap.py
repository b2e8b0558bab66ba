"""Freed memory stays with the process, unless the environment says what the C library is to do."""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from biggan.run.heap import keep_freed_memory

A_BLOCK = """
import ctypes

class Info(ctypes.Structure):
    names = "arena ordblks smblks hblks hblkhd usmblks fsmblks uordblks fordblks keepcost"
    _fields_ = [(name, ctypes.c_int) for name in names.split()]

libc = ctypes.CDLL(None)
libc.mallinfo.restype, libc.malloc.restype, libc.free.argtypes = Info, ctypes.c_void_p, [ctypes.c_void_p]
before = libc.mallinfo()
block = libc.malloc(20 * 2**20)
during = libc.mallinfo()
libc.free(block)
print(during.hblks - before.hblks, libc.mallinfo().arena - before.arena >= 20 * 2**20)
"""
"""A block of 20 MiB is taken and freed: how many mappings it took, and whether the heap has kept it."""


def own_process(code: str, **environment: str) -> str:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_TUNABLES"))}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, env=kept | environment, capture_output=True, text=True, check=True).stdout.strip()


@pytest.mark.skipif(
    not hasattr(os, "confstr") or "glibc" not in (os.confstr("CS_GNU_LIBC_VERSION") or ""), reason="glibc"
)
def test_a_freed_block_stays_with_the_process() -> None:
    assert own_process(A_BLOCK) == "1 False"
    ours = "from biggan.run.heap import keep_freed_memory\nassert keep_freed_memory()\n"
    assert own_process(ours + A_BLOCK) == "0 True"


@pytest.mark.parametrize("name", ["MALLOC_ARENA_MAX", "GLIBC_TUNABLES"])
def test_settings_of_the_environment_are_left_alone(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "1")
    assert not keep_freed_memory()


def test_other_systems_are_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    assert not keep_freed_memory()
