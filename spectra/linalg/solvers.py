"""The methods behind `top_singular_values`: each takes matrices of one shape, type and device.

`auto` decides by shape, type and device, and by what an earlier result says: never by a time that was measured, since
bits would follow. The constants are those of one core of a server; see `docs/estimators.md`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.dense import SMALL_ENTRIES, Triplets, by_arpack, by_gram, by_lapack
from spectra.linalg.gram import certified_by_gram
from spectra.linalg.krylov import block_krylov, largest_entry
from spectra.linalg.operators import ImageOperator, LinearOperator
from spectra.linalg.result import (
    StartVectors,
    TopSingularValues,
    constant,
    from_outcome,
    from_triplets,
    start_rows,
)

RESCUED_UP_TO = 4096  # shorter side up to which `auto` turns to the exact method where the iteration has not converged
BLOCKS_PER_ROW = 1 / 16  # and how long it iterates first: until that would have cost as much
GRAM_UP_TO = 1024  # on a CPU: shorter side up to which the certified Gram matrix comes before the exact method
GRAM_BLOCKS_PER_ROW = 1 / 50  # and how many blocks cost as much
GRAM_FIRST_UP_TO = 384  # shorter side up to which it is the first choice where nothing is known
WIDE_GAP, WIDE_GAP_OF_FEW = 0.06, 0.2  # from which gap an iteration is soon done; the second one up to that side


def automatic(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """The cheapest method that certifies, and the exact one where none does."""
    one = matrices[0]
    side = min(one.shape)
    if isinstance(one, Tensor) and one.device.type == "cpu" and k + 1 < side <= GRAM_UP_TO:
        pairs = zip(matrices, starts, strict=True)
        return [_iterated_or_by_gram(matrix, k, tol, start, max_blocks, seed) for matrix, start in pairs]
    return _iterated_or_exact(matrices, k, tol, starts, max_blocks, seed)


def _iterated_or_by_gram(
    matrix: Tensor, k: int, tol: float, start: StartVectors, max_blocks: int, seed: int
) -> TopSingularValues:
    """The iteration, if it will be soon done for all that is known; else, and where it gives up, the Gram matrix."""
    side, passes = min(matrix.shape), 0
    if isinstance(start, TopSingularValues) and start.gap == start.gap:
        iterate = start.gap >= (WIDE_GAP if side > GRAM_FIRST_UP_TO else WIDE_GAP_OF_FEW)
    else:
        iterate = side > GRAM_FIRST_UP_TO
    if iterate:
        rows, blocks = start_rows(matrix, start), min(max_blocks, max(int(side * GRAM_BLOCKS_PER_ROW), 4))
        (outcome,) = block_krylov([matrix], k, tol, [rows], blocks, seed, give_up=True)
        found = from_outcome(matrix, outcome)
        if found.converged or not found.finite:
            return found
        start, passes = found, found.passes
    (found,) = gram([matrix], k, tol, [start], max_blocks, seed)
    return replace(found, passes=found.passes + passes)


def _iterated_or_exact(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """The iteration, and the exact method for those that it gives up on: many nearly equal values, and no gap."""
    short = min(matrices[0].shape)
    rescued = short <= RESCUED_UP_TO and isinstance(matrices[0], Tensor)
    if rescued:
        max_blocks = min(max_blocks, max(int(short * BLOCKS_PER_ROW), 1))
    found = krylov(matrices, k, tol, starts, max_blocks, seed)
    late = [i for i, one in enumerate(found) if one.finite and not one.converged] if rescued else []
    if late:
        for i, one in zip(late, exact([matrices[i] for i in late], k, tol), strict=True):
            found[i] = replace(one, passes=one.passes + found[i].passes)
    return found


def krylov(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """Block Krylov iteration."""
    rows = [start_rows(matrix, start) for matrix, start in zip(matrices, starts, strict=True)]
    outcomes = block_krylov(matrices, k, tol, rows, max_blocks, seed)
    return [from_outcome(matrix, outcome) for matrix, outcome in zip(matrices, outcomes, strict=True)]


def gram(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """The certified Gram matrix; the exact method where it certifies nothing."""
    found = []
    for matrix, start in zip(matrices, starts, strict=True):
        outcome = None
        if isinstance(matrix, Tensor) and matrix.device.type == "cpu" and min(matrix.shape) > k + 1:
            outcome = certified_by_gram(matrix, k, tol, start_rows(matrix, start), seed)
        found.append(exact([matrix], k, tol)[0] if outcome is None else from_outcome(matrix, outcome))
    return found


def exact(matrices: Sequence[Tensor | LinearOperator], k: int, tol: float) -> list[TopSingularValues]:
    """The float64 Gram matrix; LAPACK's whole decomposition where that is not good enough."""
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
            results.append(constant(matrix, k, 0.0 if scales[i] == 0 else float("nan"), "exact"))
            continue
        if found[i].error_bound > tol:
            found[i] = by_lapack(matrix, scales[i], k)
        results.append(from_triplets(matrix, found[i], tol, "exact"))
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


def svds(
    matrices: list, k: int, tol: float, starts: Sequence[StartVectors], max_blocks: int, seed: int
) -> list[TopSingularValues]:
    """ARPACK on W itself."""
    return [_one_svds(matrix, k, tol, start, max_blocks, seed) for matrix, start in zip(matrices, starts, strict=True)]


def _one_svds(
    matrix: Tensor | LinearOperator, k: int, tol: float, start: StartVectors, max_blocks: int, seed: int
) -> TopSingularValues:
    """ARPACK's values; converged where probes that start beside its vectors find no other ones within the tolerance."""
    from scipy.sparse.linalg import ArpackError

    if not isinstance(matrix, Tensor):
        matrix = _densified(matrix)
    if min(matrix.shape) <= k:  # ARPACK wants both sides larger than k
        return exact([matrix], k, tol)[0]
    scale = largest_entry(matrix)
    if not 0 < scale < float("inf"):
        return constant(matrix, k, 0.0 if scale == 0 else float("nan"), "svds")
    host = matrix.cpu()
    if not 1e-12 < scale < 1e12:
        host = (host.double() / scale).to(host.dtype)
    unit = 1.0 if 1e-12 < scale < 1e12 else scale
    rows = start_rows(matrix, start)
    first = None if rows is None else rows[0].cpu().numpy()
    try:
        found = by_arpack(host, k, tol, first, seed)
    except ArpackError:  # no convergence, or a breakdown where very many values are equal; the result says "exact"
        return exact([matrix], k, tol)[0]
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
