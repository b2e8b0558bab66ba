"""The smallest run: as options of `biggan-train`, and as a configuration; and when two states are the same."""

from __future__ import annotations

from typing import Any

import torch

TINY = [
    "--model.resolution=8",
    "--model.ch_G=4",
    "--model.ch_D=4",
    "--train.batch=8",
    "--samples.every=0",
    "--tensorboard.every=0",
]

TINY_CONFIG: dict[str, Any] = {
    "steps": 6,
    "device": "cpu",
    "model": {"resolution": 8, "ch": 4, "z_dim": 12},
    "train": {"batch": 8, "d_steps": 2},
    "optim": {"G": {"lr": 1e-3}, "D": {"lr": 1e-3}},
    "regularizers": {"orthogonal_G": 1e-3},
    "ema": {"decay": 0.9, "start": 2},
    "checkpoint": {"every": 2},
    "samples": {"every": 0},
    "tensorboard": {"every": 0},
}


def assert_same_state(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> None:
    """Every tensor the same, bit for bit."""
    assert set(one) == set(other)
    different = [name for name, tensor in one.items() if not torch.equal(tensor, other[name])]
    assert not different
