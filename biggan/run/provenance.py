"""What a run's bits depend on besides its configuration, as recorded in run.json: versions, code, machine."""

from __future__ import annotations

import os
import platform
import subprocess
import time
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from spectra.version import package_version

if TYPE_CHECKING:
    from biggan.config import Config

PACKAGES = ("biggan", "spectra", "interventions")
DECISIVE = ("version", "commit", "dirty", "python", "torch", "numpy", "device", "threads", "ranks")
"""The facts of `run_facts` on which the bits depend."""


def run_facts(config: Config) -> dict[str, Any]:
    """Versions, code and machine that `config` is trained with now, and when that began."""
    import numpy
    import torch

    from biggan.distributed.launch import launch_id
    from biggan.distributed.ranks import world_size

    device = torch.cuda.get_device_name() if config.device == "cuda" else platform.processor() or platform.machine()
    return {
        "version": package_version(),
        **checkout(Path(__file__).resolve().parent.parent),
        "python": platform.python_version(),
        "torch": torch.__version__,
        "numpy": numpy.__version__,
        "device": device,
        "threads": config.threads,
        "ranks": world_size(),
        "launch": launch_id(),
        "started": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "parent": None,
        "changes": [],
    }


def other_facts(then: Mapping[str, Any], now: Mapping[str, Any]) -> dict[str, list[Any]]:
    """The decisive facts that differ between two run.json, where the first says them: name -> [then, now]."""
    return {name: [then[name], now.get(name)] for name in DECISIVE if name in then and then[name] != now.get(name)}


def checkout(package: Path) -> dict[str, Any]:
    """`commit`, and whether the code differs from it (`dirty`), of the checkout that `package` is a folder of.

    Both are None outside a checkout. An installed copy does not belong to the repository that contains its environment,
    although git would answer for it.
    """
    nothing = {"commit": None, "dirty": None}
    if {"site-packages", "dist-packages"} & set(package.parts):
        return nothing
    root = package.parent
    if _git(root, "ls-files", "--error-unmatch", f"{package.name}/__init__.py") is None:
        return nothing
    commit = _git(root, "rev-parse", "HEAD")
    code = [name for name in PACKAGES if (root / name).is_dir()]
    changes = _git(root, "status", "--porcelain", "--untracked-files=all", "--", *code)
    if commit is None or changes is None:
        return nothing
    return {"commit": commit, "dirty": bool(changes)}


def _git(folder: Path, *arguments: str) -> str | None:
    """The output of git in a folder; None if git fails or is not installed."""
    environment = {name: value for name, value in os.environ.items() if not name.startswith("GIT_")}
    line = ["git", "--no-optional-locks", *arguments]
    try:
        done = subprocess.run(line, cwd=folder, env=environment, capture_output=True, text=True, timeout=10)
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout.strip() if done.returncode == 0 else None
