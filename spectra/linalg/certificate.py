"""When may an iteration stop? A bound on what a Krylov space with random start directions can have missed.

A Ritz value with a small residual is close to *some* singular value. It need not be one of the largest: vectors from
an earlier step of training can be exact singular vectors of the new weight while a larger singular value has appeared
orthogonally to them. What protects against this is randomness: Gaussian probes have a component in every direction
that was fixed before they were drawn, and what the iteration knows bounds that component.

Let A = W W^T with eigenvalues lambda_1 >= lambda_2 >= ..., let X hold q orthonormal Ritz vectors x_j as columns, so
that ``A X = X Theta + Q E`` with ``Theta`` diagonal, ``Q`` orthonormal and orthogonal to X, and e_j the columns of E
(b x q). Let the s probes Omega lie in the span of X, with coordinates F (q x s). The values are bounded in three
steps.

1. **Nothing is hidden above a level z** (`_may_hide`). Suppose that more than p eigenvalues of A exceed z, where
   theta_{p+1} < z. Let V span the eigenvectors of the first p + 1. Some unit vector w in V is orthogonal to the p
   vectors x_1 ... x_p. For an eigenvector v with eigenvalue mu, ``X^T v = (mu - Theta)^-1 E^T Q^T v``; so with
   ``R(mu) = F^T (mu - Theta)^-1 E^T`` over the Ritz vectors past p,

       |w^T Omega| <= sqrt(min(p + 1, b)) * max over mu >= z of |R(mu)|

   (after a restart, where F depends on mu, with a term for x_1 ... x_p besides: see `Probes`). V depends on A alone,
   hence V^T Omega is a Gaussian matrix of p + 1 rows and s columns, and |w^T Omega| is at least its smallest singular
   value, whose lower tail is known (`probe_threshold`). It falls as epsilon^(s - p): fewer vectors are left out than
   there are probes. (A vector that is chosen *after* the probes, such as an eigenvector of A compressed to the
   complement of x_1 ... x_p, can be orthogonal to all probes as soon as p >= s.)
2. **From A to its compression.** If at most p eigenvalues of A exceed z < theta_p, then A compressed to the
   complement of x_1 ... x_p has none above ``eta = z + sum_{j <= p} |e_j|^2 / (theta_j - z)``. Otherwise x_1 ... x_p
   and the offending vector would span p + 1 dimensions in which A exceeds z (Schur complement; Courant-Fischer).
3. **From the compression to the values.** If that compression has no eigenvalue above eta, then lambda_i <= T, for i
   <= p, as soon as ``sum_{i <= j <= p} |e_j|^2 / (T - theta_j) <= T - eta`` (Schur complement; Cauchy-Schwarz). The
   error of a separated value is thus quadratic in its residual (Kato-Temple).

Where the spectrum has no gap within s - 1 values, step 1 with p = i - 1 and z = T bounds lambda_i directly, and then
the residuals have to fall to the tolerance itself.

What is assumed: products are exact up to rounding that counts as a perturbation of W; the pseudo-random probes are
Gaussian and independent of W; the maximum over mu is taken over `LEVELS` of them. Given these, a wrong certificate
has a probability of at most `FAILURE_PROBABILITY` for each p, over all checks of one matrix. Step 1 is in the spirit
of van Dorsselaer, Hochstenbach and van der Vorst (SIAM J. Matrix Anal. Appl. 22, 2000), the tail bound that of
Edelman (SIAM J. Matrix Anal. Appl. 9, 1988) and of Chen and Dongarra (SIAM J. Matrix Anal. Appl. 27, 2005). All
numbers here are small arrays of float64 on the CPU.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

FAILURE_PROBABILITY = 1e-6
"""Chance, by the bound, that random probes hide a singular value that matters."""

LEVELS = np.array([0.0, 0.1, 0.3, 0.6, 0.85])
"""Where the bound of step 1 is evaluated: from mu = z (0) to the highest mu there may be (1), on a scale of
1 / (mu - theta_q)."""

CEILINGS = (1.003, 1.03, 1.3)
"""After a restart all eigenvalues are bounded first, by one of these multiples of theta_1."""

FRACTIONS = np.array([0.1, 0.25, 0.5, 0.75, 0.9, 0.97])
"""Where in a gap of the Ritz values the level z is tried: high ones are easier for step 1, low ones for step 2."""

GAPS_TRIED = 4
"""How many of the widest gaps are tried in one check: each costs a few small products."""


def probe_threshold(probes: int, dimensions: int = 1, failure_probability: float = FAILURE_PROBABILITY) -> float:
    """What the smallest singular value of a Gaussian matrix (dimensions x probes) stays below with at most the given
    probability.

    The density of its square x is at most ``L x^(f/2 - 1)``, with ``f = probes - dimensions + 1`` and ``L = 2^(f/2 - 1)
    Gamma((probes + 1) / 2) / (Gamma(dimensions / 2) Gamma(f))``. For one dimension it is a Gaussian vector's length.
    Raises `ValueError` where there are more dimensions than probes.
    """
    freedom = probes - dimensions + 1
    if freedom < 1:
        raise ValueError(f"{dimensions} dimensions need at least as many probes; got {probes}")
    log_density = (
        (freedom / 2 - 1) * math.log(2.0)
        + math.lgamma((probes + 1) / 2)
        - math.lgamma(dimensions / 2)
        - math.lgamma(freedom)
    )
    return math.exp((math.log(failure_probability * freedom / 2) - log_density) / freedom)


@dataclass(frozen=True)
class RitzPairs:
    """What an iteration knows of A = W W^T.

    Attributes:
        values: (q,) eigenvalues of the projected A, descending (squares of the Ritz values).
        rotation: (q, q), columns are the Ritz vectors' coordinates in the basis.
        coupling: (b, q), column j holds the coordinates of the residual of Ritz vector j in A.
    """

    values: np.ndarray
    rotation: np.ndarray
    coupling: np.ndarray

    @cached_property
    def leaks(self) -> np.ndarray:
        """(q,) squared lengths of the residuals."""
        return np.einsum("bq,bq->q", self.coupling, self.coupling)


class Probes:
    """The coordinates of Gaussian probes in a Krylov basis, kept through restarts.

    A thick restart drops Ritz vectors, but an eigenvector w with eigenvalue mu has in them the components
    ``w X_drop^T = w Q^T E_drop^T (mu - Theta_drop)^-1`` (step 1), and Q stays in the basis: so a probe's component
    along w is still known from the new basis, with coordinates that depend on mu.

    Args:
        coordinates: (b, s), in the first b vectors of the basis; those in all later ones are zero.
    """

    def __init__(self, coordinates: np.ndarray) -> None:
        self.count = coordinates.shape[1]
        self._first = coordinates
        self._restarts: list[tuple[np.ndarray, np.ndarray, np.ndarray, int, np.ndarray]] = []

    def restart(self, pairs: RitzPairs, keep: int, overlap: np.ndarray) -> None:
        """Note a restart from the first ``keep`` Ritz vectors, followed in the new basis by ``overlap @ Q``."""
        self._restarts.append((pairs.values, pairs.rotation, pairs.coupling, keep, overlap))

    @property
    def restarted(self) -> bool:
        """Whether the coordinates depend on the eigenvalue."""
        return bool(self._restarts)

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


def is_certified(pairs: RitzPairs, probes: Probes, k: int, tolerance: float) -> bool:
    """Whether each of the first k singular values exceeds its Ritz value by at most ``tolerance``.

    Args:
        pairs: at least k.
        probes: standard Gaussian ones, in the span of the basis.
        k: how many values are asked for.
        tolerance: absolute, in units of singular values.
    """
    targets = (np.sqrt(np.maximum(pairs.values[:k], 0.0)) + tolerance) ** 2
    ceiling = _ceiling(pairs, probes) if probes.restarted else math.inf
    for i in range(k, 0, -1):
        if _bounded_by_a_gap(pairs, probes, targets[:i], ceiling):
            return True
        if _may_hide(pairs, probes, i - 1, float(targets[i - 1]), ceiling):
            return False
    return True


def _ceiling(pairs: RitzPairs, probes: Probes) -> float:
    """A bound on all eigenvalues, by step 1 with p = 0."""
    levels = (factor * float(pairs.values[0]) for factor in CEILINGS)
    return next((level for level in levels if not _may_hide(pairs, probes, 0, level)), math.inf)


def _bounded_by_a_gap(pairs: RitzPairs, probes: Probes, targets: np.ndarray, ceiling: float) -> bool:
    """Whether steps 1 to 3 with some p bound the first eigenvalues by ``targets``, all of them."""
    levels = _levels_in_gaps(pairs, targets, most=min(probes.count, pairs.values.size) - 1)
    widest = sorted(levels, key=lambda p: pairs.values[p] - levels[p])[:GAPS_TRIED]
    return any(not _may_hide(pairs, probes, p, levels[p], ceiling) for p in widest)


def _levels_in_gaps(pairs: RitzPairs, targets: np.ndarray, most: int) -> dict[int, float]:
    """For each p up to ``most`` the highest z, at `FRACTIONS` of the gap between theta_{p+1} and theta_p, that steps 2
    and 3 allow, where there is one."""
    wanted = len(targets)
    if most < wanted:
        return {}
    values, leaks = pairs.values[: most + 1], pairs.leaks[:most]
    summed = np.arange(most) >= np.arange(wanted)[:, None]  # step 3: over j >= i
    shares = np.divide(leaks, targets[:, None] - values[:most], out=np.zeros(summed.shape), where=summed)
    highest = (targets[:, None] - np.cumsum(shares, axis=1)).min(axis=0)[wanted - 1 :]  # eta, for p = wanted ... most
    low, high = values[wanted:], values[wanted - 1 : most]
    levels = low[:, None] + (high - low)[:, None] * FRACTIONS
    summed = np.arange(most) < np.arange(wanted, most + 1)[:, None, None]  # step 2: over j <= p
    gaps = np.where(summed, values[:most] - levels[:, :, None], np.inf)
    with np.errstate(divide="ignore", invalid="ignore"):  # 0 / 0: levels of no gap, which are not allowed
        allowed = levels + (leaks / gaps).sum(axis=2) <= highest[:, None]
    return {wanted + int(row): float(levels[row][allowed[row]].max()) for row in np.flatnonzero(allowed.any(axis=1))}


def _may_hide(pairs: RitzPairs, probes: Probes, p: int, level: float, ceiling: float = math.inf) -> bool:
    """Step 1: whether more than p eigenvalues of A may exceed ``level``, none of them ``ceiling``, for all that the
    probes say."""
    if p >= probes.count or p >= pairs.values.size or level <= pairs.values[p]:
        return True
    threshold = probe_threshold(probes.count, p + 1)
    factor = math.sqrt(min(p + 1, len(pairs.coupling)))
    lowest = float(pairs.values[-1])
    nearest, farthest = 1 / (level - lowest), 1 / (max(ceiling, level) - lowest)
    places = np.append(LEVELS, 1.0) if math.isfinite(ceiling) else LEVELS
    levels = np.maximum(level, lowest + 1 / (nearest + places * (farthest - nearest)))
    first: np.ndarray | None = None
    for mu in levels:
        coordinates = probes.in_ritz_basis(pairs.rotation, mu)
        if coordinates is None:
            return True
        bound = factor * _norm((pairs.coupling[:, p:] / (mu - pairs.values[p:])) @ coordinates[p:])
        if first is None:
            first = coordinates[:p]
        elif p > 0 and probes.restarted:  # w has next to nothing in x_1 ... x_p, but there the coordinates vary with mu
            bound += math.sqrt(p + 1) * _norm(coordinates[:p] - first)
        if not bound <= threshold:
            return True
    return False


def _norm(matrix: np.ndarray) -> float:
    return float(np.linalg.norm(matrix, 2)) if np.isfinite(matrix).all() else math.inf
