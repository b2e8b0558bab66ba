"""Singular triplets by the Gram matrix in the weights' own precision, with a certificate that needs no gap.

An iteration on W is soon done where a few singular values stand out. Where they do not (weights as they are
initialized), it reads W dozens of times. Then, up to about a thousand rows, it is cheaper to form G = W W^T once, in
float32 where W is, and to iterate on G, which is smaller. What that loses is measured and what it could miss is ruled
out:

1. **Rounding.** Let G = A + E with A = W W^T. E is fixed by W, so Gaussian probes drawn apart from it satisfy
   |E|_2 <= |E Omega|_2 / c, but for a chance of `FAILURE_PROBABILITY`, c being the length that one Gaussian vector with
   an entry for each probe hardly ever falls below (`probe_threshold`). A Omega is computed in float64.
2. **Vectors and values.** ARPACK's eigenvectors of G span a small space. In it, the singular values of W and their
   vectors are computed in float64 (Rayleigh-Ritz), so that the values have none of the rounding of G. U holds the
   first k, with A U = U Theta + R, and |R| is known.
3. **Nothing is missed.** Where the Cholesky factorization of ``t - G + U Theta U^T`` succeeds, G compressed to the
   complement of U has no eigenvalue above t, and A none above t + |E|. Then ``lambda_i <= max(theta_i, t + |E|) + |R|``
   (Weyl, Cauchy). With ``t = (sigma_k + tol sigma_0)^2 - |E| - |R|``, and t + |E| not below theta_k, no value exceeds
   its estimate by more than the tolerance. The factorization is in float64, whose rounding is far below what float32
   leaves of the tolerance.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.certificate import probe_threshold
from spectra.linalg.krylov import seeded_generator

ROUNDING_PROBES = 8
VECTORS_BEYOND = 5
"""Eigenvectors beyond those asked for: the next start, and how far the values stand out."""

RITZ_TOLERANCE = 2e-6
"""Of ARPACK's eigenvalues of G, relative: their vectors' residuals count against the tolerance."""

RESTARTS = 60
RANDOM_SHARE = 0.1  # of a start vector that is made from given ones
STRIPS = 4
"""The Gram matrix is symmetric: its lower part, in so many strips, is five eighths of the products."""

SAFE_SQUARES = (1e-24, 1e24)


@dataclass
class GramOutcome:
    """As `KrylovOutcome`: values (k,), short (k, m), long (k, n), residuals (k,), subspace (p, m); `next_value` is the
    Ritz value at the end of the subspace. The weight is read once for G, twice for the vectors and the probes."""

    method, converged, passes = "gram", True, 3

    values: np.ndarray
    short: Tensor
    long: Tensor
    residuals: np.ndarray
    subspace: Tensor
    next_value: float


@torch.no_grad()
def certified_by_gram(matrix: Tensor, k: int, tol: float, start: Tensor | None, seed: int) -> GramOutcome | None:
    """The leading k triplets, certified to ``tol * sigma_0``; None where they cannot be.

    That is where entries are not finite or too large or small to be squared, where sigma_k lies so far below sigma_0
    that the tolerance is lost in its square, and where ARPACK finds no start or no end.

    Args:
        matrix: on the CPU, float32 or float64, with more than k + 1 rows and columns.
        k: number of values.
        tol: largest error, relative to sigma_0.
        start: rows on the short side to start from; None for random ones.
        seed: of the probes, and of that start.
    """
    wide = matrix.T if matrix.shape[0] > matrix.shape[1] else matrix
    gram = _lower_gram(wide)
    diagonal = gram.diagonal()
    if not SAFE_SQUARES[0] <= float(diagonal.max()) <= SAFE_SQUARES[1]:  # NaN is in no range
        return None
    generator = seeded_generator(seed)
    drawn = torch.randn(len(wide), ROUNDING_PROBES + 1, generator=generator, dtype=torch.float64)
    first = drawn[:, 0].to(gram) / len(wide) ** 0.5
    if start is not None:  # a little of everything stays: of eigenvectors alone ARPACK could make nothing else
        first = RANDOM_SHARE * first + torch.linalg.qr(start.to(gram).T).Q.sum(1)
    found = _eigenvectors(gram, min(k + VECTORS_BEYOND, len(wide) - 1), first)
    if found is None:
        return None
    double, gram = wide.double(), gram.double()
    basis, probes = torch.linalg.qr(found.double()).Q, drawn[:, 1:]
    images = torch.cat([basis, probes], dim=1).T @ double
    turn, sigma, long = torch.linalg.svd(images[: basis.shape[1]], full_matrices=False)
    short, values = (basis @ turn)[:, :k], sigma[:k]
    back = double @ torch.cat([long[:k] * values[:, None], images[basis.shape[1] :]]).T.contiguous()
    squares = values**2
    residual = back[:, :k] - short * squares
    rounding = norm_bound(gram @ probes - back[:, k:])
    allowed = float((values[-1] + tol * values[0]) ** 2)
    level = allowed - rounding - _norm(residual)
    inner = (short * squares) @ short.T - gram
    inner.diagonal().add_(level)
    if not level + rounding >= float(squares[-1]) or int(torch.linalg.cholesky_ex(inner).info) != 0:
        return None
    return GramOutcome(
        values=values.numpy(),
        short=short.T.to(matrix.dtype),
        long=long[:k].to(matrix.dtype),
        residuals=(residual.norm(dim=0) / values).numpy(),
        subspace=(basis @ turn).T.to(matrix.dtype),
        next_value=float(sigma[-1]),
    )


def norm_bound(images: Tensor) -> float:
    """A bound on the norm of a matrix, from its images (m, s) of s Gaussian probes that were drawn apart from it."""
    return _norm(images) / probe_threshold(images.shape[1])


def _norm(matrix: Tensor) -> float:
    return float(torch.linalg.matrix_norm(matrix, 2))


def _lower_gram(wide: Tensor) -> Tensor:
    """W W^T in W's own precision, its lower strips mirrored."""
    rows = len(wide)
    gram = wide.new_empty(rows, rows)
    step = -(-rows // STRIPS)
    for low in range(0, rows, step):
        gram[low : low + step, : low + step] = wide[low : low + step] @ wide[: low + step].T
    below = torch.tril(gram, -1)
    return below + below.T + torch.diag(gram.diagonal())


def _eigenvectors(gram: Tensor, count: int, first: Tensor) -> Tensor | None:
    """(m, count) eigenvectors of the largest eigenvalues by ARPACK, descending; None where it finds none."""
    from scipy.sparse.linalg import ArpackError, LinearOperator, eigsh

    image = gram @ first
    along = (first @ image) / (first @ first)
    if not float((image - along * first).norm()) > 1e-3 * float(image.norm()):
        return None  # an eigenvector already: ARPACK would go on from random numbers of its own

    def multiply(vector: np.ndarray) -> np.ndarray:  # by torch, in its threads
        return (gram @ torch.from_numpy(np.ascontiguousarray(vector.reshape(-1)))).numpy()

    operator = LinearOperator(tuple(gram.shape), matvec=multiply, dtype=first.numpy().dtype)
    try:
        values, vectors = eigsh(operator, k=count, v0=first.numpy(), tol=RITZ_TOLERANCE, maxiter=RESTARTS)
    except ArpackError:
        return None
    if not np.isfinite(values).all():
        return None
    return torch.from_numpy(np.ascontiguousarray(vectors[:, np.argsort(values)[::-1]]))
