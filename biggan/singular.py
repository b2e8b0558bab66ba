"""The two largest singular values of a weight and their vectors: the one place where they are computed."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

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
def top_two(matrix: Tensor, start: Tensor | None = None) -> Triplets:
    """The two largest singular triplets of `matrix` (rows x columns), constants, in its dtype and on its device.

    `start` (see `start_shape`) holds the vectors of an earlier, similar matrix. The float64 Gram matrix on the shorter
    side gives them to rounding and needs none.
    """
    rows, columns = matrix.shape
    count = min(COUNT, rows, columns)
    if matrix.is_meta or not bool(torch.isfinite(matrix).all()):  # an eigenvalue routine refuses what is not finite
        left, right = (matrix.new_full((side, count), torch.nan) for side in matrix.shape)
        return Triplets(left, matrix.new_full((count,), torch.nan), right)
    wide = (matrix if rows <= columns else matrix.t()).double()
    short = torch.linalg.eigh(wide @ wide.t()).eigenvectors[:, -count:].flip(1)
    long = wide.t() @ short
    values = torch.linalg.vector_norm(long, dim=0)
    long = long / values.clamp_min(torch.finfo(torch.float64).tiny)
    left, right = (short, long) if rows <= columns else (long, short)
    return Triplets(left.to(matrix.dtype), values.to(matrix.dtype), right.to(matrix.dtype))


def sigma_and_target(
    matrix: Tensor, found: Triplets, target: float | None, ratio: float | None
) -> tuple[Tensor, Tensor | float]:
    """sigma_0 = u0^T W v0, whose derivative in W is u0 v0^T, and its target: a number, or r * sg(sigma_1).

    u0, v0 and sigma_1 are constants.
    """
    sigma = torch.dot(found.left[:, 0], matrix @ found.right[:, 0])
    return sigma, target if ratio is None else ratio * found.values[1]
