"""Every kind of update on a GPU that is not there: no tensor on the wrong device, and nothing waits for the device."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import fake_gpu
import pytest

pytestmark = pytest.mark.slow

HELPERS = Path(fake_gpu.__file__).parent


def problems(library: Path, names: list[str]) -> dict[str, str | None]:
    command = [sys.executable, str(HELPERS / "fake_gpu.py"), str(library), *names]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


def test_updates_stay_on_the_gpu_and_wait_for_nothing(library: Path) -> None:
    assert problems(library, list(fake_gpu.CASES)) == dict.fromkeys(fake_gpu.CASES)


def test_what_is_broken_is_found(library: Path) -> None:
    found = problems(library, list(fake_gpu.BROKEN))
    words = ("device", "DataDependent", "from cpu to cuda:0 waits")
    for (name, error), word in zip(found.items(), words, strict=True):
        assert error is not None, name
        assert word in error, (name, error)
