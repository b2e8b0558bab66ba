"""The two largest singular values of a weight and their vectors: the one place where they are computed."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor
from torch._subclasses import FakeTensor

from spectra.linalg.topk import top_singular_values, top_singular_values_batch

COUNT = 2  # sigma_0, and sigma_1 for targets that are a ratio of it


class Triplets(NamedTuple):
    """The largest singular values (k,) of a matrix (rows x columns), descending, left (rows, k) and right (columns, k).

    k is 2, or 1 for a matrix of one row or column. NaN where the matrix is not finite.
    """

    left: Tensor
    values: Tensor
    right: Tensor

    @property
    def short(self) -> Tensor:
        """The vectors on the shorter side, (min(rows, columns), k): where to start from when the matrix has changed."""
        return self.left if len(self.left) <= len(self.right) else self.right


def start_shape(matrix: Tensor) -> tuple[int, int]:
    """The shape of `Triplets.short` of a matrix."""
    short = min(matrix.shape)
    return short, min(COUNT, short)


@torch.no_grad()
def top_two(matrices: Sequence[Tensor], starts: Sequence[Tensor | None]) -> list[Triplets]:
    """The two largest singular triplets of each matrix (rows x columns), constants, in its dtype and on its device.

    `starts` (see `start_shape`) holds for each the vectors of an earlier, similar matrix, or none. Exact to rounding
    for matrices of up to a few hundred rows or columns, to 1e-5 of sigma_0 beyond (`spectra.top_singular_values`).
    """
    if any(matrix.is_meta or isinstance(matrix, FakeTensor) for matrix in matrices):
        # Shapes without numbers: what a run would need is being counted.
        return [_unknown(matrix) for matrix in matrices]
    found = top_singular_values_batch([matrix.detach() for matrix in matrices], COUNT, starts=starts)
    triplets = []
    for one, matrix in zip(found, matrices, strict=True):
        if one.finite and not one.converged:  # training is never steered by a guess
            one = top_singular_values(matrix.detach(), COUNT, method="exact")
        triplets.append(Triplets(one.left.to(matrix), one.values.to(matrix), one.right.to(matrix)))
    return triplets


def _unknown(matrix: Tensor) -> Triplets:
    _, count = start_shape(matrix)
    left, right = (matrix.new_empty((side, count)) for side in matrix.shape)
    return Triplets(left, matrix.new_empty((count,)), right)


def sigma_and_target(
    matrix: Tensor, found: Triplets, target: float | None, ratio: float | None
) -> tuple[Tensor, Tensor | float]:
    """sigma_0 = u0^T W v0, whose derivative in W is u0 v0^T, and its target: a number, or r * sg(sigma_1).

    u0, v0 and sigma_1 are constants.
    """
    sigma = torch.dot(found.left[:, 0], matrix @ found.right[:, 0])
    return sigma, target if ratio is None else ratio * found.values[1]
