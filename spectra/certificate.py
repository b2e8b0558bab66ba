"""When may an iteration stop? A bound on what a Krylov space with random start directions can have missed.

A Ritz value with a small residual is close to *some* singular value. It need not be one of the largest: vectors from an
earlier step of training can be exact singular vectors of the new weight while a larger singular value has appeared
orthogonally to them. What protects against this is randomness: a Gaussian probe has a component in every direction, and
that component can be bounded from what the iteration already knows.

Let A = W W^T, and let the rows of X (q of them) be an orthonormal Ritz basis, so that ``X A = Theta X + E Q`` with
``Theta`` diagonal, ``Q`` orthonormal and orthogonal to X, and E (q x b) the couplings. Three facts make the rule:

1. (Courant-Fischer) The i-th eigenvalue of A is at most the largest of A compressed to the complement of any i-1
   vectors.
2. (Schur complement) If A compressed to the complement of the first p Ritz vectors has no eigenvalue above nu, then for
   every i <= p the i-th eigenvalue of A is at most ``Theta_i + D`` as soon as ``|E_1..p|^2 <= D (D + Theta_i - nu)``.
3. If that compression has an eigenvector w with eigenvalue mu >= nu > Theta_{p+1}, then
   ``w X^T = w Q^T E^T (mu - Theta)^-1``, so a probe in the span of X with coordinates F has
   ``|w . probe| <= |E^T (mu - Theta)^-1 F|``. For s Gaussian probes that are independent of w, the left sides are
   rarely all small: their length has a chi distribution with s degrees of freedom.

Fact 3 for one vector is the probabilistic bound of van Dorsselaer, Hochstenbach and van der Vorst (SIAM J. Matrix Anal.
Appl. 22, 2000); fact 2 is what makes the error of a value quadratic in its residual once it is separated from the rest.
All numbers here are small arrays of float64 on the CPU.
"""

from __future__ import annotations

import math

import numpy as np

FAILURE_PROBABILITY = 1e-6
"""Chance, per check and by the bound, that random probes hide a singular value that matters."""


def probe_threshold(probes: int, failure_probability: float = FAILURE_PROBABILITY) -> float:
    """The length that a Gaussian vector of ``probes`` components stays below with at most the given probability.

    Uses ``P(chi_s <= e) <= (e^2 / 2)^(s/2) / Gamma(s/2 + 1)``.
    """
    half = probes / 2
    return math.sqrt(2.0) * math.exp((math.log(failure_probability) + math.lgamma(half + 1)) / (2 * half))


class Probes:
    """The coordinates of Gaussian probes in a Krylov basis, kept through restarts.

    A thick restart drops Ritz vectors, but an eigenvector w with eigenvalue mu has in them the components
    ``w X_drop^T = w Q^T E_drop^T (mu - Theta_drop)^-1`` (fact 3), and Q stays in the basis: so a probe's component
    along w is still known from the new basis, with coordinates that depend on mu.

    Args:
        coordinates: (b, s), in the first b vectors of the basis; those in all later ones are zero.
    """

    def __init__(self, coordinates: np.ndarray) -> None:
        self.count = coordinates.shape[1]
        self._first = coordinates
        self._restarts: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]] = []

    def restart(
        self, ritz: np.ndarray, rotation: np.ndarray, coupling: np.ndarray, keep: int, overlap: np.ndarray
    ) -> None:
        """Note a restart from the first ``keep`` Ritz vectors, followed in the new basis by ``overlap @ Q``."""
        self._restarts.append((ritz, rotation, coupling, keep, overlap))

    def in_ritz_basis(self, rotation: np.ndarray, level: float) -> np.ndarray | None:
        """(q, s) coordinates for eigenvectors with the eigenvalue ``level``; None where a dropped value lies above."""
        known = self._first
        for ritz, earlier, coupling, keep, overlap in self._restarts:
            turned = earlier[: len(known)].T @ known
            gaps = level - ritz[keep:]
            if gaps.min() <= 0:
                return None
            known = np.vstack([turned[:keep], overlap @ ((coupling[:, keep:] / gaps) @ turned[keep:])])
        return rotation[: len(known)].T @ known


def is_certified(
    ritz: np.ndarray,
    rotation: np.ndarray,
    coupling: np.ndarray,
    probes: Probes,
    k: int,
    tolerance: float,
    noise: float = 0.0,
    max_cluster: int = 24,
) -> bool:
    """Whether each of the first k singular values exceeds its Ritz value by at most ``tolerance``.

    Args:
        ritz: q eigenvalues of the projected A = W W^T, descending (squares of the Ritz values).
        rotation: (q, q), columns are the Ritz vectors' coordinates in the basis.
        coupling: (b, q), column j the coordinates of the residual of Ritz vector j in A.
        probes: standard Gaussian ones, in the span of the basis.
        k: how many values are asked for, at most q.
        tolerance: absolute, in units of singular values.
        noise: relative rounding error of a product with W; residuals below ``noise * sigma_0 * sigma_j`` count as none.
        max_cluster: how many Ritz values past k may be counted to the leading cluster.
    """
    sigma = np.sqrt(np.maximum(ritz, 0.0))
    lengths = np.linalg.norm(coupling, axis=0)
    counted = lengths > noise * sigma[0] * sigma
    coupling = np.where(counted, coupling, 0.0)
    leaks = np.cumsum(np.where(counted, lengths, 0.0) ** 2)  # at least the squared spectral norms
    threshold = probe_threshold(probes.count)

    def nothing_hidden_above(level: float, p: int) -> bool:
        """Fact 3: the compression to the complement of the first p Ritz vectors has no eigenvalue above level."""
        gaps = level - ritz[p:]
        if gaps.size == 0 or gaps.min() <= 0:
            return False
        coordinates = probes.in_ritz_basis(rotation, level)
        if coordinates is None:
            return False
        bound = (coupling[:, p:] / gaps) @ coordinates[p:]
        length = math.sqrt(float(np.vdot(bound, bound)))  # between the spectral norm and root s times it
        if length <= threshold or length > threshold * math.sqrt(probes.count):
            return length <= threshold
        return bool(np.linalg.norm(bound, 2) <= threshold)

    for i in range(k, 0, -1):  # 1-based, as in the module's docstring
        slack = tolerance * (2 * sigma[i - 1] + tolerance)
        for p in range(i, min(ritz.size - 1, k + max_cluster) + 1):
            leak = leaks[p - 1]
            level = ritz[i - 1] + slack - leak / slack
            if level <= ritz[-1]:
                break  # the leak grows with p
            if nothing_hidden_above(level, p):
                return True  # it bounds every value before the i-th too
        if not nothing_hidden_above(ritz[i - 1] + slack, i - 1):
            return False
    return True
