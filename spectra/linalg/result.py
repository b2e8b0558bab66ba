"""What an estimate of singular values consists of, how each method's numbers are put into it, and what of an earlier
one the next can start from."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.operators import LinearOperator

if TYPE_CHECKING:
    from spectra.linalg.dense import Triplets
    from spectra.linalg.gram import GramOutcome
    from spectra.linalg.krylov import KrylovOutcome


@dataclass(frozen=True, eq=False)
class TopSingularValues:
    """The largest singular values of one matrix (rows x columns), and how reliable they are.

    Attributes:
        values: (k,) float64 on the CPU, descending; fewer where the matrix has fewer rows or columns. NaN where not
            finite.
        left: (rows, k), on the matrix's device, float32 or float64.
        right: (columns, k), likewise.
        residuals: (k,) float64: the length of ``W^T u - sigma v``, or ``W v - sigma u``, in the values' units.
        converged: every value is within ``tol * sigma_0`` of the true one. Never True by a small residual alone.
        finite: False where the matrix holds a NaN or Inf.
        passes: how many times the whole matrix was read.
        method: "exact", "gram", "krylov" or "svds"; "tracked" of `spectra.linalg.tracked`.
        subspace: (shorter side, p >= k): the block to start from when the matrix has changed a little.
        gap: how far the last value lies above the one five places further, over sigma_0: near 0 where nothing stands
            out. An estimate, by which `auto` chooses a method for the next, similar matrix; NaN where it is unknown.
    """

    values: Tensor
    left: Tensor
    right: Tensor
    residuals: Tensor
    converged: bool
    finite: bool
    passes: int
    method: str
    subspace: Tensor
    gap: float = math.nan


StartVectors = TopSingularValues | Tensor | None


def start_rows(matrix: Tensor | LinearOperator, start: StartVectors) -> Tensor | None:
    """A start as rows on the shorter side."""
    if start is None:
        return None
    short = min(matrix.shape)
    vectors = start.subspace if isinstance(start, TopSingularValues) else start
    if not isinstance(vectors, Tensor) or vectors.dim() != 2 or vectors.shape[0] not in tuple(matrix.shape):
        came = tuple(vectors.shape) if isinstance(vectors, Tensor) else type(vectors).__name__
        raise ValueError(
            f"start is an earlier result, or vectors as columns: for this matrix ({matrix.shape[0]}, j) left or "
            f"({matrix.shape[1]}, j) right ones; got {came}"
        )
    rows = vectors.detach().T.to(matrix.device, matrix.dtype)
    if len(rows) == 0 or not torch.isfinite(rows).all():
        return None  # vectors of a layer that had already blown up say nothing
    if vectors.shape[0] == short:
        return rows
    tall = matrix.shape[0] > matrix.shape[1]  # then the vectors given are left ones, on the longer side
    if isinstance(matrix, Tensor):
        return rows @ (matrix if tall else matrix.T)
    return matrix.adjoint(rows) if tall else matrix.forward(rows)


def from_outcome(matrix: Tensor | LinearOperator, outcome: KrylovOutcome | GramOutcome) -> TopSingularValues:
    """What the iteration found, or the Gram matrix."""
    left, right = _sides(matrix, outcome.short.T, outcome.long.T)
    return TopSingularValues(
        values=torch.from_numpy(outcome.values),
        left=left,
        right=right,
        residuals=torch.from_numpy(outcome.residuals),
        converged=outcome.converged,
        finite=bool(np.isfinite(outcome.values).all()),
        passes=outcome.passes,
        method=outcome.method,
        subspace=outcome.subspace.T,
        gap=_gap(outcome.values, outcome.next_value),
    )


def _sides(matrix: Tensor | LinearOperator, short: Tensor, long: Tensor) -> tuple[Tensor, Tensor]:
    """Left and right from the vectors on the shorter and on the longer side."""
    return (long, short) if matrix.shape[0] > matrix.shape[1] else (short, long)


def _gap(values: np.ndarray, further: float) -> float:
    return float(values[-1] - further) / float(values[0]) if values[0] > 0 else math.nan


def from_triplets(matrix: Tensor, triplets: Triplets, tol: float, method: str) -> TopSingularValues:
    tall = matrix.shape[0] > matrix.shape[1]
    left, right = triplets.left.to(matrix.dtype), triplets.right.to(matrix.dtype)
    return TopSingularValues(
        values=triplets.values.cpu(),
        left=left,
        right=right,
        residuals=triplets.residuals.cpu(),
        converged=triplets.error_bound <= tol,
        finite=True,
        passes=triplets.passes,
        method=method,
        subspace=right if tall else left,
    )


def constant(matrix: Tensor, k: int, value: float, method: str) -> TopSingularValues:
    """The result for a matrix of zeros (value 0) or one that is not finite (value NaN)."""
    left, right = (torch.eye(side, k, dtype=matrix.dtype, device=matrix.device) + value for side in matrix.shape)
    numbers = torch.full((k,), value, dtype=torch.float64)
    subspace = right if matrix.shape[0] > matrix.shape[1] else left
    return TopSingularValues(numbers, left, right, numbers.clone(), value == 0, value == 0, 1, method, subspace)
