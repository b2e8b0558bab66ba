"""The top singular values of a matrix, exact to a stated tolerance. Section 4.1 of the paper: the three largest of
each weight matrix are the most informative statistic of approaching trouble.

Five methods give the same answer at different cost:

    exact    float64 Gram matrix on the short side and its eigenvalues; best up to a hundred rows
    gram     the Gram matrix in the weight's own precision, ARPACK on it, and a Cholesky factorization that certifies
             them; best up to a thousand rows where no value stands out. On a CPU; exact elsewhere
    krylov   block Krylov iteration with random probes, on the matrix's own device, warm-started where vectors are given
    svds     ARPACK, which the paper's method (Arnoldi iteration) names: the reference; then checked by probes
    auto     on a CPU exact up to 128 rows, gram or krylov up to 1,024, krylov beyond; on an accelerator exact up to
             384 rows, krylov beyond; exact again where that does not converge
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from spectra.linalg import solvers
from spectra.linalg.dense import SMALL_ENTRIES
from spectra.linalg.operators import LinearOperator
from spectra.linalg.result import StartVectors, TopSingularValues
from spectra.linalg.tf32 import tf32
from spectra.nearest import nearest

if TYPE_CHECKING:
    from numpy.typing import NDArray

METHODS = ("auto", "exact", "gram", "krylov", "svds")
EXACT_UP_TO = 384  # shorter side up to which `auto` is `exact`
EXACT_UP_TO_ON_CPU = 128  # and on a CPU, which has the certified Gram matrix beyond
SINGLE_UP_TO = 4e-6  # tolerances below this leave float32's products too little room: computed in float64


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
        method: "auto", "exact", "gram", "krylov" or "svds".
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
            found = solvers.exact(mine, count, tol)
        else:
            solve = {"krylov": solvers.krylov, "gram": solvers.gram, "svds": solvers.svds, "auto": solvers.automatic}
            found = solve[chosen](mine, count, tol, [starts[i] for i in members], max_blocks, seed)
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
    on_cpu = isinstance(matrix, Tensor) and matrix.device.type == "cpu"
    small = min(matrix.shape) <= (EXACT_UP_TO_ON_CPU if on_cpu else EXACT_UP_TO)
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
