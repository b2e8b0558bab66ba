"""Help is there at once: no command waits for torch to say what it can do."""

from __future__ import annotations

import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

SCRIPTS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text(encoding="utf-8"))["project"][
    "scripts"
]
HELP = """
import importlib, sys
module, name = sys.argv.pop(1).split(":")
sys.argv[1:] = ["--help"]
try:
    code = getattr(importlib.import_module(module), name)()
except SystemExit as end:
    code = end.code
assert not code, code
slow = [name for name in ("torch", "scipy", "pandas", "matplotlib") if name in sys.modules]
assert not slow, slow
"""


@pytest.mark.parametrize("command", SCRIPTS)
def test_help_imports_nothing_slow(command: str) -> None:
    done = subprocess.run([sys.executable, "-c", HELP, SCRIPTS[command]], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
