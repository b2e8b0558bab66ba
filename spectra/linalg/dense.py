"""Singular triplets of dense matrices by direct and reference methods: the float64 Gram matrix, LAPACK, and ARPACK's
`svds`."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
import torch
from torch import Tensor

SUBSET_FROM = 128  # from this side on, a few eigenpairs by LAPACK's MRRR take half as long as all
PANEL = 2**22  # entries converted to float64 at a time
SMALL_ENTRIES = 2**16  # matrices with at most this many entries are batched with others of the same short side


@dataclass
class Triplets:
    """(k,) values descending, (rows, k) left and (columns, k) right vectors, (k,) residuals: all float64; and the
    bound on the values' error by rounding, relative to the largest."""

    values: Tensor
    left: Tensor
    right: Tensor
    residuals: Tensor
    error_bound: float
    passes: int


@torch.no_grad()
def by_gram(matrices: Sequence[Tensor], scales: Sequence[float], k: int) -> list[Triplets]:
    """Eigenvalues of the float64 Gram matrix on the short side, several equally shaped matrices at once.

    The vectors are then sent through the matrix itself, so that values far below sigma_0 have an error relative to
    sigma_0 that is about the float64 precision where they stand apart, and its root (1e-8) at worst.

    Args:
        matrices: of one shape and device; large ones are read in panels, not copied whole. Up to `SMALL_ENTRIES`
            entries they may differ in the long side, for which zeros are appended.
        scales: each matrix is divided by this first (its largest entry, say), so that squares stay finite.
        k: at most the short side.
    """
    oriented = [w.T if w.shape[0] > w.shape[1] else w for w in matrices]
    widest = max(w.shape[1] for w in oriented)
    work = _together if len(oriented) * len(oriented[0]) * widest <= PANEL else _in_panels
    near, values, far, residuals = work(oriented, scales, k)
    found = []
    for i, (w, scale) in enumerate(zip(matrices, scales, strict=True)):
        long = far[i][: oriented[i].shape[1]]
        left, right = (near[i], long) if oriented[i] is w else (long, near[i])
        bound = _gram_error(values[i], oriented[i].shape[0])
        found.append(Triplets(values[i] * scale, left, right, residuals[i] * scale, bound, 4))
    return found


def _together(wide: Sequence[Tensor], scales: Sequence[float], k: int) -> tuple[Tensor, ...]:
    """Small matrices, stacked in float64: (B, m, k) short vectors, values, (B, n, k) long vectors, residuals."""
    divisors = torch.tensor(scales, dtype=torch.float64, device=wide[0].device)
    widest = max(w.shape[1] for w in wide)
    whole = torch.zeros(len(wide), len(wide[0]), widest, dtype=torch.float64, device=wide[0].device)
    for row, w in zip(whole, wide, strict=True):
        row[:, : w.shape[1]] = w
    whole /= divisors[:, None, None]
    near, values, far = _refined(_leading_eigenvectors(whole @ whole.mT, k), lambda vectors: whole.mT @ vectors)
    return near, values, far, (whole @ far - near * values[:, None, :]).norm(dim=1)


def _in_panels(wide: Sequence[Tensor], scales: Sequence[float], k: int) -> tuple[Tensor, ...]:
    """As `_together`, with no more than a panel of each matrix in float64 at a time."""
    width = max(1, PANEL // wide[0].shape[0])

    def panels(w: Tensor, scale: float) -> Iterator[Tensor]:
        for part in w.split(width, dim=1):
            yield part.to(torch.float64, copy=True).div_(scale)

    pairs = list(zip(wide, scales, strict=True))
    gram = torch.stack([_gram(panels(*pair), wide[0].shape[0]) for pair in pairs])
    near, values, far = _refined(
        _leading_eigenvectors(gram, k),
        lambda vectors: torch.stack(
            [torch.cat([part.T @ v for part in panels(*pair)]) for pair, v in zip(pairs, vectors, strict=True)]
        ),
    )
    back = torch.zeros_like(near)
    for total, pair, vectors in zip(back, pairs, far, strict=True):
        for part, rows in zip(panels(*pair), vectors.split(width), strict=True):
            total += part @ rows
    return near, values, far, (back - near * values[:, None, :]).norm(dim=1)


def _refined(near: Tensor, multiply: Callable[[Tensor], Tensor]) -> tuple[Tensor, Tensor, Tensor]:
    """Values and long vectors from the eigenvectors' images, whose lengths have none of the Gram matrix's rounding."""
    images = multiply(near)
    values = images.norm(dim=1)
    far = images / values[:, None, :]
    small = values[:, -1] <= 1e-2 * values[:, 0]
    if bool(small.any()):  # small values' images are not yet orthogonal
        far[small], values[small], turn = torch.linalg.svd(images[small], full_matrices=False)
        near = near.clone()
        near[small] = near[small] @ turn.mT
    return near, values, far


def _gram(panels: Iterator[Tensor], short: int) -> Tensor:
    """W W^T, its lower blocks only and then mirrored: five eighths of the products."""
    first = next(panels)
    gram = torch.zeros(short, short, dtype=first.dtype, device=first.device)
    step = short if short <= 256 else -(-short // 4)
    for panel in chain([first], panels):
        for low in range(0, short, step):
            high = min(low + step, short)
            gram[low:high, :high].addmm_(panel[low:high], panel[:high].T)
    return torch.tril(gram) + torch.tril(gram, -1).T


def _leading_eigenvectors(gram: Tensor, k: int) -> Tensor:
    """(B, m, k) eigenvectors of the k largest eigenvalues, descending."""
    side = gram.shape[-1]
    if gram.device.type != "cpu" or side < SUBSET_FROM:
        return torch.linalg.eigh(gram).eigenvectors.flip(-1)[..., :k]
    return torch.stack([_last_eigenvectors(g, k) for g in gram])


def _last_eigenvectors(gram: Tensor, k: int) -> Tensor:
    """(m, k) by LAPACK's MRRR, which can come back with none, and no error, where all eigenvalues are equal to
    rounding: then by the whole decomposition."""
    from scipy.linalg import eigh

    side = len(gram)
    _, vectors = eigh(gram.numpy(), subset_by_index=[side - k, side - 1], check_finite=False)
    if vectors.shape[1] < k:
        return torch.linalg.eigh(gram).eigenvectors.flip(-1)[:, :k]
    return torch.from_numpy(vectors[:, ::-1].copy())


def _gram_error(values: Tensor, short: int) -> float:
    """Bound on the values' error, relative to the largest: the Gram matrix's rounding, seen through a square root."""
    first, *_ = numbers = values.tolist()  # a handful of numbers, for which tensors would cost more than the sums
    if first == 0:
        return 0.0
    rounding = 4 * short**0.5 * torch.finfo(torch.float64).eps
    if not all(map(math.isfinite, numbers)):
        return math.nan
    return max(min(rounding / max(value / first, 1e-300), rounding**0.5) for value in numbers)


@torch.no_grad()
def by_lapack(matrix: Tensor, scale: float, k: int) -> Triplets:
    """The whole singular value decomposition in float64. Exact to rounding for every spectrum, and slow."""
    whole = matrix.double() / scale
    u, sigma, vt = torch.linalg.svd(whole, full_matrices=False)
    u, sigma, v = u[:, :k], sigma[:k], vt[:k].T
    residuals = torch.maximum((whole @ v - u * sigma).norm(dim=0), (whole.T @ u - v * sigma).norm(dim=0))
    bound = 4 * max(whole.shape) ** 0.5 * torch.finfo(torch.float64).eps
    return Triplets(sigma * scale, u, v, residuals * scale, bound, 1)


def by_arpack(
    matrix: Tensor, k: int, tol: float, start: np.ndarray | None, seed: int
) -> tuple[np.ndarray, np.ndarray, np.ndarray, int]:
    """scipy's `svds` (ARPACK's implicitly restarted Arnoldi method, which the paper names) on the matrix as it is.

    Args:
        matrix: on the CPU, float32 or float64, both sides larger than k.
        k: number of values.
        tol: largest relative error of a value. `svds` squares its own before ARPACK compares a residual in W^T W with
            it, so it is given the root.
        start: one vector on the short side, or None for a random one.
        seed: of that random vector.

    Returns:
        left (rows, k), values (k,) descending, right (columns, k), and the number of products with the matrix or its
        transpose.

    Raises:
        scipy.sparse.linalg.ArpackError: no convergence, or a breakdown (where very many values are equal).
    """
    from scipy.sparse.linalg import LinearOperator, svds

    array = matrix.numpy()
    products = [0]

    def counted(operand: np.ndarray) -> object:
        def multiply(vector: np.ndarray) -> np.ndarray:
            products[0] += 1
            return operand @ vector

        return multiply

    operator = LinearOperator(
        array.shape,
        matvec=counted(array),
        rmatvec=counted(array.T),
        matmat=counted(array),
        rmatmat=counted(array.T),
        dtype=array.dtype,
    )
    if start is None:
        start = np.random.default_rng(seed).standard_normal(min(array.shape))
    u, values, vt = svds(operator, k=k, tol=tol**0.5, v0=start.astype(array.dtype), solver="arpack")
    order = np.argsort(values)[::-1]
    return u[:, order], values[order], vt[order].T, products[0]
