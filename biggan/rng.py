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


def uniform(keys: np.ndarray, draw: int) -> np.ndarray:
    """float64 (B,) in [0, 1), a function of the keys (B,), uint64, and of the number of the draw alone.

    The keys are random numbers themselves; SplitMix64 (Steele, Lea, Flood, 2014) makes independent ones of them, for
    in little time: a generator for each image took longer than reading it.
    """
    bits = keys + np.uint64(draw * 0x9E3779B97F4A7C15 % 2**64)
    bits = (bits ^ (bits >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    bits = (bits ^ (bits >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return ((bits ^ (bits >> np.uint64(31))) >> np.uint64(11)) * 2.0**-53
