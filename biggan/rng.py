"""Randomness as a function of (seed, purpose, step, k): nothing about it ever has to be saved.

No draw in training comes from global state. `k` is the D step within the step, so that adding D steps leaves every
other draw as it was. Global batches are drawn whole, on the CPU, and sliced afterwards, so that devices, workers
and ranks agree.
"""

from __future__ import annotations

import hashlib
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import torch


def _digest(seed: int, purpose: str, step: int, k: int) -> bytes:
    return hashlib.blake2b(f"{seed}/{purpose}/{step}/{k}".encode(), digest_size=16).digest()


def generator(seed: int, purpose: str, step: int = 0, k: int = 0) -> np.random.Generator:
    """A NumPy generator (Philox, 128-bit key) for one purpose at one place of the run."""
    return np.random.Generator(np.random.Philox(key=int.from_bytes(_digest(seed, purpose, step, k), "little")))


def torch_generator(seed: int, purpose: str, step: int = 0, k: int = 0) -> torch.Generator:
    """A CPU torch generator for one purpose at one place of the run, for functions of torch that ask for one."""
    import torch

    return torch.Generator().manual_seed(int.from_bytes(_digest(seed, purpose, step, k)[:8], "little") >> 1)
