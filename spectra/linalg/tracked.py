"""Following the leading singular triplets of weights that change a little at a time, with two readings of them.

Between certifications, a few directions are carried from one measurement to the next: the leading Ritz vectors X, the
directions R of their residuals, and P, what the last measurement added to X. In the span of these three the singular
values of the new weight are computed exactly (Rayleigh-Ritz; the first reading), and A X for the next residuals (the
second). This is LOBPCG (Knyazev, SIAM J. Sci. Comput. 23, 2001) with one iteration for each measurement.

The values approach the true ones from below, mostly to 1e-6 of sigma_0 while training is calm. What they cannot see is
a value that has risen apart from these directions, until the next certification; so nothing here is ever called
converged.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from spectra.linalg.dense import SMALL_ENTRIES
from spectra.linalg.result import TopSingularValues, constant
from spectra.linalg.tf32 import tf32

FOLLOWED = 2  # Ritz vectors beyond those asked for


@torch.no_grad()
@tf32(False)
def track(matrices: Sequence[Tensor], starts: Sequence[Tensor], k: int = 3) -> list[TopSingularValues]:
    """The k leading singular triplets of each matrix in the space of what was known of an earlier, similar one.

    The same matrices, starts and number of threads give the same bits.

    Args:
        matrices: rows x columns, float32 or float64 (others are computed in float32), of any device.
        starts: for each the `subspace` of an earlier result, of `track` or of another method: (shorter side, j).
        k: how many values, at least 1.

    Returns:
        Results whose `method` is "tracked" and `converged` False; `subspace` is the start for the next. NaN for a
        matrix that is not finite.

    Raises:
        ValueError: a start of another matrix's side.
    """
    wide = [_oriented(matrix) for matrix in matrices]
    groups: dict[tuple, list[int]] = {}
    for i, (w, start) in enumerate(zip(wide, starts, strict=True)):
        side, long = w.shape
        if start.dim() != 2 or start.shape[0] != side or start.shape[1] < 1:
            raise ValueError(f"a start has {side} rows for this matrix, the shorter side; got {tuple(start.shape)}")
        small = side * long <= SMALL_ENTRIES  # those are padded to one shape, which costs less than a call for each
        shape = long.bit_length() // 3 if small else (i,)
        groups.setdefault((shape, start.shape[1], min(k, side), w.dtype, w.device), []).append(i)
    found: dict[int, TopSingularValues] = {}
    for (_, _, count, *_), members in groups.items():
        some = _followed([wide[i] for i in members], [starts[i] for i in members], count)
        for i, numbers in zip(members, some, strict=True):
            found[i] = _result(matrices[i], *numbers)
    return [found[i] for i in range(len(matrices))]


def _in_precision(matrix: Tensor) -> Tensor:
    return matrix.detach() if matrix.dtype == torch.float64 else matrix.detach().float()


def _oriented(matrix: Tensor) -> Tensor:
    rows, columns = matrix.shape
    return _in_precision(matrix).mT if rows > columns else _in_precision(matrix)


def _followed(wide: Sequence[Tensor], starts: Sequence[Tensor], k: int) -> list[tuple]:
    """For each (finite, values (k,), short (k, m), long (k, n), residuals (k,), subspace (m, j)); values on the CPU."""
    stacked, basis = _stacked(wide, starts)
    basis = torch.linalg.qr(basis).Q.mT
    kept = min(k + FOLLOWED, basis.shape[1], *(w.shape[0] for w in wide))
    images = basis @ stacked
    double = images.double()
    squares = double @ double.mT
    finite = torch.isfinite(squares).all(-1).all(-1)
    if not bool(finite.all()):
        squares = torch.where(finite[:, None, None], squares, torch.zeros_like(squares))
    ritz, turn = torch.linalg.eigh(squares)
    ritz, turn = ritz.flip(-1)[:, :kept], turn.flip(-1)[..., :kept].mT
    ritz, turned = ritz.clamp_min(0), turn.to(basis)
    near, far = turned @ basis, turned @ images
    values = ritz.sqrt()
    tiny = torch.finfo(basis.dtype).tiny
    long = far / values[..., None].to(far).clamp_min(tiny)
    residual = long @ stacked.mT - values[..., None].to(basis) * near  # of unit vectors: no square that could overflow
    added = turned.clone()
    added[..., :kept] = 0  # what the new vectors have beyond the old ones, which come first in the basis
    parts = [near, residual, added @ basis] if basis.shape[1] > kept else [near, residual]
    subspace = _of_unit_length(torch.cat(parts, dim=1))
    lengths = torch.linalg.vector_norm(residual, dim=-1).double()
    host = torch.stack([values, lengths]).cpu()
    known = finite.tolist()
    columns_of = subspace.mT
    found = []
    for i, (rows, columns) in enumerate(tuple(w.shape) for w in wide):
        vectors = near[i, :k, :rows], long[i, :k, :columns]
        found.append(
            (known[i], host[0, i, :k], *vectors, host[1, i, :k], columns_of[i, :rows, : 3 * rows].contiguous())
        )
    return found


def _stacked(wide: Sequence[Tensor], starts: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
    """The matrices (B, m, n) and their starts (B, m, j), zeros where one is smaller; a matrix alone is not copied."""
    if len(wide) == 1:
        return wide[0][None], starts[0].to(wide[0])[None]
    shapes = [tuple(w.shape) for w in wide]
    rows, columns = (max(shape[side] for shape in shapes) for side in (0, 1))
    stacked = wide[0].new_zeros(len(wide), rows, columns)
    basis = wide[0].new_zeros(len(wide), rows, starts[0].shape[1])
    torch._foreach_copy_([stacked[i, :r, :c] for i, (r, c) in enumerate(shapes)], list(wide))
    torch._foreach_copy_([basis[i, :r] for i, (r, _) in enumerate(shapes)], list(starts))
    return stacked, basis


def _of_unit_length(rows: Tensor) -> Tensor:
    lengths = torch.linalg.vector_norm(rows, dim=-1, keepdim=True)
    return rows / torch.where(lengths > 0, lengths, torch.ones_like(lengths))


def _result(
    matrix: Tensor, finite: bool, values: Tensor, short: Tensor, long: Tensor, residuals: Tensor, subspace: Tensor
) -> TopSingularValues:
    if not finite:
        return constant(_in_precision(matrix), values.shape[0], math.nan, "tracked")
    rows, columns = matrix.shape
    left, right = (long.mT, short.mT) if rows > columns else (short.mT, long.mT)
    return TopSingularValues(values, left, right, residuals, False, True, 2, "tracked", subspace)
