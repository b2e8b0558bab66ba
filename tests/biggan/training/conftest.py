"""A CUDA device that does nothing, for machines without a GPU."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import fake_gpu
import pytest
import torch


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The compiled fake_gpu.cpp; it is made for the tests alone."""
    compiler = shutil.which("c++") or shutil.which("g++") or shutil.which("clang++")
    if compiler is None:
        (pytest.fail if os.environ.get("CI") else pytest.skip)("there is no C++ compiler here")
    home, source = Path(torch.__file__).parent, Path(fake_gpu.__file__).with_name("fake_gpu.cpp")
    out = tmp_path_factory.mktemp("fake_gpu") / "fake_gpu.so"
    places = [f"-I{home / 'include'}", f"-L{home / 'lib'}", "-lc10", "-ltorch_cpu", f"-Wl,-rpath,{home / 'lib'}"]
    command = [compiler, "-std=c++20", "-O0", "-shared", "-fPIC", str(source), *places, "-o", str(out)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return out
