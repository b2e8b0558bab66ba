"""Randomness is a function of (seed, purpose, step, k) and of nothing else."""

from __future__ import annotations

import torch

from biggan import rng

KEYS = [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]


def test_generators_differ_by_each_of_their_keys() -> None:
    assert len({rng.generator(*key).integers(2**63) for key in KEYS}) == len(KEYS)
    assert len({rng.torch_generator(*key).initial_seed() for key in KEYS}) == len(KEYS)


def test_generators_repeat() -> None:
    assert rng.generator(0, "a", 3, 1).integers(2**63) == rng.generator(0, "a", 3, 1).integers(2**63)
    one, other = (torch.randn(4, generator=rng.torch_generator(0, "a", 3, 1)) for _ in range(2))
    assert torch.equal(one, other)
