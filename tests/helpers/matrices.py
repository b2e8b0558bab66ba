"""Matrices with known difficulties, and the truth about them, for the tests of the estimators."""

from __future__ import annotations

import torch
from torch import Tensor

KINDS = (
    "gaussian",
    "spiked",
    "orthogonal",
    "slow",
    "repeated",
    "clustered",
    "graded",
    "rank_one",
    "zero",
    "stepped",
)


def spectrum(kind: str, count: int) -> Tensor:
    """Singular values of the given kind, descending, float64."""
    i = torch.arange(count, dtype=torch.float64)
    return {
        "orthogonal": torch.ones(count, dtype=torch.float64),
        "slow": (i + 1) ** -0.1,
        "repeated": torch.where(i < 2, 1.0, torch.where(i < 6, 0.9, 0.89 * (i + 1) ** -0.05)),
        "clustered": torch.where(i < 5, 1 - 1e-6 * i, 0.7 * (i + 1) ** -0.2),
        "graded": 10.0 ** (-i * 12 / max(count - 1, 1)),
        "rank_one": (i < 1).double(),
        "zero": torch.zeros(count, dtype=torch.float64),
    }[kind]


def with_spectrum(values: Tensor, rows: int, columns: int, seed: int) -> Tensor:
    """A float64 matrix with these singular values and random vectors."""
    generator = torch.Generator().manual_seed(seed)
    count = len(values)
    left = torch.linalg.qr(torch.randn(rows, count, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, count, generator=generator, dtype=torch.float64)).Q
    return (left * values) @ right.T


def make(kind: str, rows: int, columns: int, seed: int = 0) -> Tensor:
    """A float64 matrix of one of `KINDS`; its largest entries are of the order of 1 / sqrt(columns)."""
    generator = torch.Generator().manual_seed(seed + 1)
    noise = torch.randn(rows, columns, generator=generator, dtype=torch.float64)
    if kind == "gaussian":
        return noise / max(rows, columns) ** 0.5
    if kind == "spiked":
        spikes = torch.tensor([4.0, 3.0, 2.5], dtype=torch.float64)[: min(rows, columns)]
        return noise / max(rows, columns) ** 0.5 + with_spectrum(spikes, rows, columns, seed)
    if kind == "stepped":  # orthogonal initialisation after one step of Adam's size
        return with_spectrum(spectrum("orthogonal", min(rows, columns)), rows, columns, seed) + 2e-3 * noise.sign()
    return with_spectrum(spectrum(kind, min(rows, columns)), rows, columns, seed)


def largest(matrix: Tensor, k: int) -> Tensor:
    """The truth: LAPACK in float64."""
    return torch.linalg.svdvals(matrix.double())[:k]
