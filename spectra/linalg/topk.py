"""The top singular values of a matrix, exact to a stated tolerance. Section 4.1 of the paper: the three largest of
each weight matrix are the most informative statistic of approaching trouble.

Four methods give the same answer at different cost:

    exact    float64 Gram matrix on the short side and its eigenvalues; best up to a few hundred rows
    krylov   block Krylov iteration with random probes, on the matrix's own device, warm-started where vectors are given
    svds     ARPACK, which the paper's method (Arnoldi iteration) names: the reference; then checked by probes
    auto     exact where the shorter side is at most 384, else krylov, and exact again where that does not converge
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.dense import SMALL_ENTRIES, Triplets, by_arpack, by_gram, by_lapack
from spectra.linalg.krylov import KrylovOutcome, block_krylov, largest_entry
from spectra.linalg.operators import ImageOperator, LinearOperator
from spectra.linalg.tf32 import tf32
from spectra.nearest import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("auto", "exact", "krylov", "svds")
EXACT_UP_TO = 384  # shorter side up to which `auto` takes the Gram matrix
RESCUED_UP_TO = 4096  # shorter side up to which `auto` turns to the Gram matrix where the iteration has not converged
BLOCKS_PER_ROW = 1 / 16  # and how long it iterates first: until a Gram matrix would have cost as much
SINGLE_UP_TO = 4e-6  # tolerances below this leave float32's products too little room: computed in float64


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
        method: "exact", "krylov" or "svds".
        subspace: (shorter side, p >= k): the block to start from when the matrix has changed a little.
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


StartVectors = TopSingularValues | Tensor | None


def top_singular_values(
    matrix: Tensor | NDArray[np.floating] | LinearOperator,
    k: int = 3,
    method: str = "auto",
    tol: float = 1e-5,
    start: StartVectors = None,
    max_blocks: int = 64,
    seed: int = 0,
) -> TopSingularValues:
    """The k largest singular values of a matrix or operator, with vectors, residuals, convergence and cost.

    Reads the matrix without gradient and changes nothing: no random state, no mode, no entry. The same input, seed
    and number of threads give the same bits. float16 and bfloat16 are computed in float32, float64 in float64; a
    tolerance below 4e-6 computes everything in float64.

    Args:
        matrix: rows x columns, any strides, CPU or GPU; or an object with the methods of `LinearOperator`.
        k: how many, at least 1. A matrix with fewer rows or columns has fewer.
        method: "auto", "exact", "krylov" or "svds".
        tol: largest error allowed, relative to sigma_0. Below about 1e-7, krylov and svds cannot tell values far below
            sigma_0 from zero (their squares drown in the projection's rounding), and then say that they have not
            converged.
        start: an earlier result for a similar matrix, or (rows, j) left or (columns, j) right vectors. Only speeds up.
        max_blocks: krylov stops after this many blocks, with ``converged`` False.
        seed: of the random start directions.

    Raises:
        ValueError: k < 1, tol outside of (0, 1), an unknown method, a start of another shape, an empty or complex
            matrix or one that is not 2-D, or an operator too large for a method that needs the whole matrix.
        TypeError: something that is neither a matrix nor an operator.
    """
    return top_singular_values_batch([matrix], k, method, tol, [start], max_blocks, seed)[0]


@tf32(False)
def top_singular_values_batch(
    matrices: Sequence[Tensor | NDArray[np.floating] | LinearOperator],
    k: int = 3,
    method: str = "auto",
    tol: float = 1e-5,
    starts: Sequence[StartVectors] | None = None,
    max_blocks: int = 64,
    seed: int = 0,
) -> list[TopSingularValues]:
    """`top_singular_values` of many matrices: those of like shape (small ones: of a like short side),
    type and device are computed together.

    The results are in the order of the matrices; ``starts`` holds one start (or None) for each.
    """
    _check_arguments(k, method, tol)
    starts = [None] * len(matrices) if starts is None else list(starts)
    if len(starts) != len(matrices):
        raise ValueError(f"starts has {len(starts)} entries for {len(matrices)} matrices: give one (or None) for each")
    prepared = [_prepare(matrix, tol) for matrix in matrices]
    groups: dict[tuple, list[int]] = {}
    for i, matrix in enumerate(prepared):
        chosen = method
        if method == "auto" and _is_small(matrix):
            chosen = "exact"
        groups.setdefault((chosen, *_alike(i, matrix, chosen)), []).append(i)
    results: dict[int, TopSingularValues] = {}
    for (chosen, *_), members in groups.items():
        mine, count = [prepared[i] for i in members], min(k, *prepared[members[0]].shape)
        if chosen == "exact":
            found = _exact(mine, count, tol)
        else:
            solve = {"krylov": _krylov, "svds": _svds, "auto": _krylov_or_exact}[chosen]
            found = solve(mine, count, tol, [starts[i] for i in members], max_blocks, seed)
        results.update(zip(members, found, strict=True))
    return [results[i] for i in range(len(matrices))]


def _alike(i: int, matrix: Tensor | LinearOperator, method: str) -> tuple:
    """What matrices that are computed together have in common: all, or for small ones by their Gram the short side."""
    if not isinstance(matrix, Tensor):
        return (i,)
    by_short_side = method == "exact" and matrix.numel() <= SMALL_ENTRIES
    return (min(matrix.shape) if by_short_side else tuple(matrix.shape), matrix.dtype, str(matrix.device))


def _is_small(matrix: Tensor | LinearOperator) -> bool:
    """Whether `auto` takes the Gram matrix. An operator has to be written out for it, so its long side counts too."""
    small = min(matrix.shape) <= EXACT_UP_TO
    return small and (isinstance(matrix, Tensor) or matrix.shape[0] * matrix.shape[1] <= 2**22)


def _check_arguments(k: int, method: str, tol: float) -> None:
    if not isinstance(k, int) or isinstance(k, bool) or k < 1:
        raise ValueError(f"k is the number of singular values to compute, a whole number of at least 1; got {k!r}")
    if method not in METHODS:
        raise ValueError(f"method is one of {', '.join(METHODS)}; got {method!r}{nearest(str(method), METHODS)}")
    if not 0 < tol < 1:
        raise ValueError(
            f"tol is the largest error relative to sigma_0, between 0 and 1 (1e-5, for example); got {tol!r}"
        )


def _prepare(matrix: Tensor | np.ndarray | LinearOperator, tol: float) -> Tensor | LinearOperator:
    """The matrix in a type that can be computed with. Raises an error for anything that is not a matrix."""
    if isinstance(matrix, np.ndarray):
        if matrix.dtype.kind not in "fc":
            raise ValueError(f"a matrix of floating-point numbers is expected; got a numpy array of {matrix.dtype}")
        matrix = torch.from_numpy(np.ascontiguousarray(matrix, dtype=matrix.dtype.newbyteorder("=")))
    if isinstance(matrix, Tensor):
        if not matrix.dtype.is_floating_point:
            raise ValueError(f"a matrix of real floating-point numbers is expected; got one of {matrix.dtype}")
        if matrix.dim() != 2:
            raise ValueError(
                f"a matrix has two dimensions; got the shape {tuple(matrix.shape)}. A weight is reshaped to "
                "out x rest by weight.flatten(1)"
            )
        if matrix.numel() == 0:
            raise ValueError(f"the matrix is empty, of shape {tuple(matrix.shape)}: it has no singular values")
        if matrix.layout != torch.strided or matrix.is_meta:
            raise ValueError("a dense matrix that holds its numbers is expected; got a sparse or a meta tensor")
        double = matrix.dtype == torch.float64 or tol < SINGLE_UP_TO
        return matrix.detach().to(torch.float64 if double else torch.float32)
    if not isinstance(matrix, LinearOperator):
        raise TypeError(
            f"a 2-D tensor, a numpy array or an operator (shape, dtype, device, forward, adjoint) is expected; "
            f"got a {type(matrix).__name__}"
        )
    if matrix.dtype not in (torch.float32, torch.float64) or min(matrix.shape) < 1:
        raise ValueError(f"an operator computes in float32 or float64; got {matrix.dtype}, of shape {matrix.shape}")
    return matrix


def _krylov(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    rows = [_start_rows(matrix, start) for matrix, start in zip(matrices, starts, strict=True)]
    outcomes = block_krylov(matrices, k, tol, rows, max_blocks, seed)
    return [_from_outcome(matrix, outcome) for matrix, outcome in zip(matrices, outcomes, strict=True)]


def _krylov_or_exact(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """The iteration, and the Gram matrix for those that it gives up on: many nearly equal values, and no gap."""
    short = min(matrices[0].shape)
    rescued = short <= RESCUED_UP_TO and isinstance(matrices[0], Tensor)
    if rescued:
        max_blocks = min(max_blocks, max(int(short * BLOCKS_PER_ROW), 1))
    found = _krylov(matrices, k, tol, starts, max_blocks, seed)
    late = [i for i, one in enumerate(found) if one.finite and not one.converged] if rescued else []
    if late:
        exact = _exact([matrices[i] for i in late], k, tol)
        for i, one in zip(late, exact, strict=True):
            found[i] = replace(one, passes=one.passes + found[i].passes)
    return found


def _start_rows(matrix: Tensor | LinearOperator, start: StartVectors) -> Tensor | None:
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


def _from_outcome(matrix: Tensor | LinearOperator, outcome: KrylovOutcome) -> TopSingularValues:
    left, right = outcome.short.T, outcome.long.T
    if matrix.shape[0] > matrix.shape[1]:
        left, right = right, left
    return TopSingularValues(
        values=torch.from_numpy(outcome.values),
        left=left,
        right=right,
        residuals=torch.from_numpy(outcome.residuals),
        converged=outcome.converged,
        finite=bool(np.isfinite(outcome.values).all()),
        passes=2 * outcome.blocks,
        method="krylov",
        subspace=outcome.subspace.T,
    )


def _exact(matrices: Sequence[Tensor | LinearOperator], k: int, tol: float) -> list[TopSingularValues]:
    dense = [matrix if isinstance(matrix, Tensor) else _densified(matrix) for matrix in matrices]
    scales = [largest_entry(matrix) for matrix in dense]
    usual = [i for i, scale in enumerate(scales) if 0 < scale < float("inf")]
    found: dict[int, Triplets] = {}
    if usual:
        for some in _batches(usual, dense):
            triplets = by_gram([dense[i] for i in some], [scales[i] for i in some], k)
            found.update(zip(some, triplets, strict=True))
    results = []
    for i, matrix in enumerate(dense):
        if i not in found:
            results.append(_constant(matrix, k, 0.0 if scales[i] == 0 else float("nan"), "exact"))
            continue
        if found[i].error_bound > tol:
            found[i] = by_lapack(matrix, scales[i], k)
        results.append(_from_triplets(matrix, found[i], tol, "exact"))
    return results


def _batches(members: list[int], dense: Sequence[Tensor]) -> Iterator[list[int]]:
    """Small matrices in groups of a bounded memory; large ones, which are of one shape, in one."""
    size = 32 if dense[0].numel() <= SMALL_ENTRIES else max(1, len(members))
    for begin in range(0, len(members), size):
        yield members[begin : begin + size]


def _densified(operator: LinearOperator) -> Tensor:
    """An operator's matrix, by its products with unit vectors on the shorter side."""
    short, long = min(operator.shape), max(operator.shape)
    if short * long > 2**27:
        raise ValueError(
            f"this method needs the whole matrix, and the operator's has {operator.shape[0]} x {operator.shape[1]} "
            "entries: use method 'krylov'"
        )
    if isinstance(operator, ImageOperator):
        return operator.dense()
    eye = torch.eye(short, dtype=operator.dtype, device=operator.device)
    tall = operator.shape[0] > operator.shape[1]
    return operator.forward(eye).T if tall else operator.adjoint(eye)


def _from_triplets(matrix: Tensor, triplets: Triplets, tol: float, method: str) -> TopSingularValues:
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


def _constant(matrix: Tensor, k: int, value: float, method: str) -> TopSingularValues:
    """The result for a matrix of zeros (value 0) or one that is not finite (value NaN)."""
    left, right = (torch.eye(side, k, dtype=matrix.dtype, device=matrix.device) + value for side in matrix.shape)
    numbers = torch.full((k,), value, dtype=torch.float64)
    subspace = right if matrix.shape[0] > matrix.shape[1] else left
    return TopSingularValues(numbers, left, right, numbers.clone(), value == 0, value == 0, 1, method, subspace)


def _svds(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    return [_one_svds(matrix, k, tol, start, max_blocks, seed) for matrix, start in zip(matrices, starts, strict=True)]


def _one_svds(
    matrix: Tensor | LinearOperator, k: int, tol: float, start: StartVectors, max_blocks: int, seed: int
) -> TopSingularValues:
    """ARPACK's values; converged where probes that start beside its vectors find no other ones within the tolerance."""
    from scipy.sparse.linalg import ArpackError

    if not isinstance(matrix, Tensor):
        matrix = _densified(matrix)
    if min(matrix.shape) <= k:  # ARPACK wants both sides larger than k
        return _exact([matrix], k, tol)[0]
    scale = largest_entry(matrix)
    if not 0 < scale < float("inf"):
        return _constant(matrix, k, 0.0 if scale == 0 else float("nan"), "svds")
    host = matrix.cpu()
    if not 1e-12 < scale < 1e12:
        host = (host.double() / scale).to(host.dtype)
    unit = 1.0 if 1e-12 < scale < 1e12 else scale
    rows = _start_rows(matrix, start)
    first = None if rows is None else rows[0].cpu().numpy()
    try:
        found = by_arpack(host, k, tol, first, seed)
    except ArpackError:  # no convergence, or a breakdown where very many values are equal; the result says "exact"
        return _exact([matrix], k, tol)[0]
    left, values, right = (torch.from_numpy(np.ascontiguousarray(array)) for array in found[:3])
    values, passes = values.double(), found[3]
    subspace = right if matrix.shape[0] > matrix.shape[1] else left
    (check,) = block_krylov([host], k, tol / 2, [subspace.T], max_blocks, seed)
    difference = float((values - torch.from_numpy(check.values)).abs().max())
    double = host.double()
    misfit = torch.maximum(
        (double @ right.double() - left.double() * values).norm(dim=0),
        (double.T @ left.double() - right.double() * values).norm(dim=0),
    )
    return TopSingularValues(
        values=values * unit,
        left=left.to(matrix.device),
        right=right.to(matrix.device),
        residuals=misfit * unit,
        converged=check.converged and difference <= 0.5 * tol * float(check.values[0]),
        finite=True,
        passes=passes + 2 * check.blocks + 2,
        method="svds",
        subspace=subspace.to(matrix.device),
    )
