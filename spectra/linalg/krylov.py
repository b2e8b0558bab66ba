"""Block Krylov iteration for the leading singular triplets of one or several equally shaped matrices, with a
certified stop.

With W (m x n, m the short side) and A = W W^T the basis V (rows, orthonormal) spans K(A, V_0) on the short side.
Beside V it keeps Y = V W, whose float64 Gram matrix is the projection of A: so values carry the rounding of products
with W, relative to sigma_0, and not that of products with A, in which what is below sigma_0 times the root of the
precision drowns. The start block always holds fresh Gaussian probes beside any given vectors, every vector is
orthogonalized against the whole basis, and the iteration stops where `spectra.linalg.certificate` says that nothing is
missed.
"""

from __future__ import annotations

import hashlib
import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from spectra.linalg.certificate import Probes, RitzPairs, is_certified
from spectra.linalg.operators import LinearOperator, Scaled

BLOCK_WIDTH = 16  # a product with 16 vectors costs little more than with 4: reading the matrix dominates
START = 4  # vectors of an earlier result that are worth their products: with the probes a block of 16 for three values
SUBSPACE = 8  # leading Ritz vectors that are handed on
MORE_PROBES = 9  # than values asked for: the certificate leaves out fewer vectors than there are probes
MAX_BASIS = 192
MIN_CAPACITY_IN_BLOCKS = 4
MEMORY_FOR_BASIS = 2**28  # bytes; a basis that would outgrow it restarts from its Ritz vectors
FIRST_FORECAST = 3  # block from which on it may give up: before, residuals do not fall regularly
RESIDUAL_AT_THE_END = 1e-3  # relative to sigma_0^2; where it stopped, it was mostly below a third of this
SAFE = (1e-12, 1e12)  # magnitudes whose squares float32 holds; matrices outside are scaled first


@dataclass
class KrylovOutcome:
    """What the iteration found for one matrix. Vectors are rows; short and long name the matrix's sides.

    Attributes:
        values: (k,) float64, descending; NaN where the matrix is not finite.
        short, long: (k, m) and (k, n).
        residuals: (k,) float64, the length of ``W^T u - sigma v``, in the units of the values.
        subspace: (p, m), the leading Ritz vectors, some more than k: the best start for the next call.
        converged: every value is certified to the tolerance.
        blocks: how many blocks of vectors went through W and back.
        next_value: the Ritz value five places behind the last; NaN where it is unknown.
    """

    values: np.ndarray
    short: Tensor
    long: Tensor
    residuals: np.ndarray
    subspace: Tensor
    converged: bool
    blocks: int
    next_value: float = math.nan

    method = "krylov"

    @property
    def passes(self) -> int:
        """How many times the matrix was read."""
        return 2 * self.blocks


class Products:
    """Products with each of several matrices seen with their short side first.

    On a CPU the matrices are used where they are, one after the other. On an accelerator (or where ``stack`` says so)
    they are stacked, so that each product is one launch for all of them.
    """

    def __init__(self, matrices: Sequence[Tensor | LinearOperator], stack: bool | None = None) -> None:
        self.members = list(matrices)
        first = self.members[0]
        dense = [one for one in self.members if isinstance(one, Tensor)]
        self.dense = bool(dense)
        self.dtype, self.device = first.dtype, torch.device(first.device)
        rows, columns = first.shape
        self.tall = rows > columns
        self.short, self.long = min(rows, columns), max(rows, columns)
        if stack is None:
            stack = self.device.type != "cpu"
        self._stacked = torch.stack(dense) if dense and stack and len(dense) > 1 else None

    def to_long(self, vectors: Tensor) -> Tensor:
        """(B, b, short) to (B, b, long)."""
        return self._apply(vectors, transposed=self.tall)

    def to_short(self, vectors: Tensor) -> Tensor:
        """(B, b, long) to (B, b, short), by the transpose."""
        return self._apply(vectors, transposed=not self.tall)

    def _apply(self, vectors: Tensor, transposed: bool) -> Tensor:
        if self._stacked is not None:
            return vectors @ (self._stacked.mT if transposed else self._stacked)
        pairs = zip(self.members, vectors, strict=True)
        return _stacked([self._of_one(one, block, transposed) for one, block in pairs])

    @staticmethod
    def _of_one(matrix: Tensor | LinearOperator, vectors: Tensor, transposed: bool) -> Tensor:
        if not isinstance(matrix, Tensor):
            return matrix.forward(vectors) if transposed else matrix.adjoint(vectors)
        # (W v^T)^T is v W^T several times faster: BLAS then reads W along its rows.
        return (matrix @ vectors.T.contiguous()).T if transposed else vectors @ matrix


def largest_entry(matrix: Tensor | LinearOperator) -> float:
    """max |entry| without a copy, NaN or Inf where there is one. Of an operator: of a product with random numbers."""
    if not isinstance(matrix, Tensor):
        probe = torch.randn(1, matrix.shape[1], generator=torch.Generator().manual_seed(0), dtype=matrix.dtype)
        matrix = matrix.forward(probe.to(matrix.device))
    low, high = (float(bound) for bound in torch.aminmax(matrix))
    return float("nan") if low != low or high != high else max(-low, high)


@torch.no_grad()
def block_krylov(
    matrices: Sequence[Tensor | LinearOperator],
    k: int,
    tol: float,
    start: Sequence[Tensor | None],
    max_blocks: int,
    seed: int,
    stack: bool | None = None,
    rescale: bool = True,
    give_up: bool = False,
) -> list[KrylovOutcome]:
    """The leading k singular triplets of each matrix. All have one shape, dtype (float32 or float64) and device.

    Args:
        matrices: dense ones, or operators.
        k: at most the short side.
        tol: largest error of a value, relative to sigma_0.
        start: for each matrix None, or (j, short) rows near its leading singular vectors, not necessarily orthonormal.
        max_blocks: stop after this many blocks, even if unconverged.
        seed: of the probes' generator.
        stack: iterate on all matrices at once; by default on an accelerator only.
        rescale: scale matrices of unusual magnitude first.
        give_up: stop also where the residuals fall too slowly to be small by ``max_blocks``.
    """
    one = Products(matrices[:1], stack=False)
    probes = min(k + MORE_PROBES, one.short)
    room = min(max(START, k), one.short - probes)
    if stack is None:
        stack = one.device.type != "cpu" and one.dense
    widths = [0 if given is None else min(len(given), room) for given in start]
    outcomes: list[KrylovOutcome | None] = [None] * len(matrices)
    for members in _equal_widths(widths) if stack else [[i] for i in range(len(matrices))]:
        if len(members) > 1:  # members of a stack must not spoil one another; alone, the first product tells
            members = [i for i in members if SAFE[0] <= largest_entry(matrices[i]) <= SAFE[1]]
        if members:
            given = _stacked_rows([start[i] for i in members], widths[members[0]], one)
            products = Products([matrices[i] for i in members], stack)
            found = _Iteration(products, k, tol, max_blocks, seed, probes, room, give_up).run(given, rescale)
            for i, outcome in zip(members, found, strict=True):
                outcomes[i] = outcome
    return [
        _solve_scaled(matrix, k, tol, start[i], max_blocks, seed) if outcome is None else outcome
        for i, (matrix, outcome) in enumerate(zip(matrices, outcomes, strict=True))
    ]


def _equal_widths(widths: Sequence[int]) -> list[list[int]]:
    """The places of equal numbers: only equally wide starts can be stacked."""
    return [[i for i, width in enumerate(widths) if width == wanted] for wanted in dict.fromkeys(widths)]


def _stacked_rows(start: Sequence[Tensor | None], width: int, like: Products) -> Tensor | None:
    """The first `width` rows of each start, (B, width, short); None without any."""
    given = [rows[:width].to(like.device, like.dtype) for rows in start if rows is not None]
    return torch.stack(given) if width else None


def _solve_scaled(
    matrix: Tensor | LinearOperator, k: int, tol: float, start: Tensor | None, max_blocks: int, seed: int
) -> KrylovOutcome:
    """A matrix that is not finite, is zero, or is so large or small that squares of its products would not be."""
    scale = largest_entry(matrix)
    short, long = min(matrix.shape), max(matrix.shape)
    if scale > 0 and np.isfinite(scale):
        scaled = (matrix.double() / scale).to(matrix.dtype) if isinstance(matrix, Tensor) else Scaled(matrix, scale)
        (outcome,) = block_krylov([scaled], k, tol, [start], max_blocks, seed, rescale=False)
        outcome.values, outcome.residuals = outcome.values * scale, outcome.residuals * scale
        outcome.next_value *= scale
        return outcome
    value = 0.0 if scale == 0 else float("nan")
    eye = torch.eye(k, long, dtype=matrix.dtype, device=matrix.device) + value
    numbers = np.full(k, value)
    return KrylovOutcome(numbers, eye[:, :short].clone(), eye, numbers.copy(), eye[:, :short].clone(), scale == 0, 1)


class _Iteration:
    """One iteration, batched over the products' members."""

    def __init__(
        self,
        products: Products,
        k: int,
        tol: float,
        max_blocks: int,
        seed: int,
        least_probes: int,
        room: int,
        give_up: bool = False,
    ) -> None:
        self.products, self.k, self.tol, self.max_blocks = products, k, tol, max_blocks
        self.room, self.least_probes = room, least_probes
        self.give_up, self.last_residual = give_up, [math.nan] * len(products.members)
        self.block = max(min(BLOCK_WIDTH, products.short), least_probes + room)
        self.count = len(products.members)
        self.generator = seeded_generator(seed)
        # A product's rounding error relative to |W| |v|: below 8 units in the last place up to 24,576 terms.
        self.noise = 8 * torch.finfo(products.dtype).eps
        bytes_each = (4 * products.short + 8 * products.long) * self.count
        self.capacity = max(MIN_CAPACITY_IN_BLOCKS * self.block, min(MAX_BASIS, MEMORY_FOR_BASIS // bytes_each))
        self.outcomes: list[KrylovOutcome | None] = [None] * self.count

    def run(self, given: Tensor | None, rescale: bool) -> list[KrylovOutcome | None]:
        """Iterate to the end; None, if ``rescale``, where the first product is outside of the safe magnitudes."""
        self._begin(given)
        for blocks in range(1, self.max_blocks + 1):
            images = self.products.to_long(self.basis[:, -self.fresh :])
            if blocks == 1 and rescale and not SAFE[0] <= largest_entry(images) <= SAFE[1]:
                break
            directions, coupling = torch.linalg.qr(self._project(images).mT)
            coupling = _host(coupling)
            ritz, rotation = _eigenpairs(self.projection)
            self._finish_members(ritz, rotation, coupling, blocks)
            if all(outcome is not None for outcome in self.outcomes):
                break
            if self.basis.shape[1] + self.fresh > self.capacity:
                self._restart(ritz, rotation, directions, coupling)
            else:
                self._extend(directions.mT, self._is_deficient(ritz, coupling))
        return self.outcomes

    def _finish_members(self, ritz: np.ndarray, rotation: np.ndarray, coupling: np.ndarray, blocks: int) -> None:
        """Write down the outcome of each member that has converged, or of all that are left where this is the end."""
        complete = self.basis.shape[1] == self.products.short
        for i in range(self.count):
            if self.outcomes[i] is not None:
                continue
            pairs = RitzPairs(ritz[i], rotation[i], coupling[i] @ rotation[i, -self.fresh :] * (not complete))
            converged = self._is_resolved(pairs) and (complete or self._certified(i, pairs))
            if converged or complete or blocks == self.max_blocks or self._is_hopeless(i, pairs, blocks):
                self.outcomes[i] = self._outcome(i, pairs, converged, blocks)

    def _gaussian(self, rows: int) -> Tensor:
        """Fresh probes (B, rows, short), the same for every member and on every device."""
        drawn = torch.randn(rows, self.products.short, generator=self.generator, dtype=self.products.dtype)
        return drawn.to(self.products.device).expand(self.count, -1, -1)

    def _begin(self, given: Tensor | None) -> None:
        """A new basis from given rows (B, j, short) and fresh probes."""
        width = 0 if given is None else given.shape[1]
        probes = self._gaussian(max(min(BLOCK_WIDTH, self.products.short) - width, self.least_probes))
        self.basis = _orthonormal(probes if given is None else torch.cat([given, probes], dim=1))
        self.fresh = self.basis.shape[1]
        self.probes = [Probes(coordinates) for coordinates in _host(self.basis @ probes.mT)]
        self.images: list[Tensor] = []
        self.projection = np.zeros((self.count, 0, 0))

    def _project(self, images: Tensor) -> Tensor:
        """Take up the newest rows' images in the projection; returns what A makes of the rows outside of the basis."""
        returned = self.products.to_short(images)
        for _ in range(2):  # the first subtraction leaves the rounding of its own large terms
            returned = returned - (returned @ self.basis.mT) @ self.basis
        self.images.append(images.double())
        column = np.concatenate([_host(old @ self.images[-1].mT) for old in self.images], axis=1)
        before = self.projection.shape[1]
        grown = np.zeros((self.count, before + self.fresh, before + self.fresh))
        grown[:, :before, :before] = self.projection
        grown[:, :, before:] = column
        grown[:, before:, :] = np.swapaxes(column, 1, 2)
        self.projection = grown
        return returned

    def _is_resolved(self, pairs: RitzPairs) -> bool:
        """Whether rounding, of products and of the projection in float64, leaves the tolerance anything to say."""
        first, last = (float(np.sqrt(max(pairs.values[j], 0.0))) for j in (0, min(self.k, pairs.values.size) - 1))
        rounding = 4 * self.products.short**0.5 * np.finfo(np.float64).eps
        return bool(self.tol >= 2 * self.noise and self.tol * (2 * last + self.tol * first) >= rounding * first)

    def _is_hopeless(self, i: int, pairs: RitzPairs, blocks: int) -> bool:
        """Whether the residual of the last value, falling as it did in the last block, is too large at the end."""
        if not self.give_up or pairs.values.size < self.k:
            return False
        before, now = self.last_residual[i], float(np.sqrt(pairs.leaks[self.k - 1]) / max(pairs.values[0], 1e-300))
        self.last_residual[i] = now
        if blocks < FIRST_FORECAST or not now > 0:
            return False
        factor = min(now / before, 0.99)
        return now * factor ** (self.max_blocks - blocks) > RESIDUAL_AT_THE_END

    def _certified(self, i: int, pairs: RitzPairs) -> bool:
        tolerance = self.tol * float(np.sqrt(max(pairs.values[0], 0.0)))
        return pairs.values.size > self.k and is_certified(pairs, self.probes[i], self.k, tolerance)

    def _extend(self, directions: Tensor, deficient: bool) -> None:
        """The next block: what A added, kept orthogonal where that is only rounding."""
        left = self.products.short - self.basis.shape[1]
        if left <= self.fresh:
            full = torch.linalg.qr(self.basis.mT, mode="complete").Q.mT
            directions = full[:, -left:]
        if deficient:  # where nothing was added the factorization returns arbitrary directions, maybe of the basis
            directions = directions + torch.finfo(directions.dtype).eps * self._gaussian(directions.shape[1])
            directions = _orthonormal(directions - (directions @ self.basis.mT) @ self.basis)
        directions = _orthonormal(directions - (directions @ self.basis.mT) @ self.basis)
        self.fresh = directions.shape[1]
        self.basis = torch.cat([self.basis, directions], dim=1)

    def _is_deficient(self, ritz: np.ndarray, coupling: np.ndarray) -> bool:
        """Whether some directions of the remainder are nothing, not even rounding."""
        diagonal = np.abs(np.diagonal(coupling, axis1=1, axis2=2))
        return bool((diagonal.min(axis=1) <= 1e-4 * self.noise * ritz[:, 0]).any())

    def _restart(self, ritz: np.ndarray, rotation: np.ndarray, directions: Tensor, coupling: np.ndarray) -> None:
        """Thick restart: a third of the basis, its leading Ritz vectors, and the directions of their residuals."""
        keep = self.capacity // 3
        turn = np.swapaxes(rotation[:, :, :keep], 1, 2)
        images = torch.cat(self.images, dim=1)
        self.basis, self.images = _device(turn, self.basis) @ self.basis, [_device(turn, images) @ images]
        self.projection = _host(self.images[0] @ self.images[0].mT)
        residual = coupling @ rotation[:, -self.fresh :]
        self._extend(directions.mT, self._is_deficient(ritz, coupling))
        overlap = _host(self.basis[:, keep:] @ directions)
        for i, probes in enumerate(self.probes):
            probes.restart(RitzPairs(ritz[i], rotation[i], residual[i]), keep, overlap[i])

    def _long_vectors(self, i: int, rotation: np.ndarray) -> tuple[Tensor, np.ndarray, Tensor]:
        """Member i's k values and long vectors from its Ritz vectors' images, and the turn of the short ones they
        imply."""
        long, row = torch.zeros(self.k, self.products.long, dtype=torch.float64, device=self.basis.device), 0
        for block in self.images:
            long += _device(rotation[row : row + block.shape[1]].T, long) @ block[i]
            row += block.shape[1]
        values = torch.linalg.vector_norm(long, dim=1)
        if float(values.min()) > 1e-6 * float(values.max()):
            turn, vectors = torch.eye(self.k), long / values[:, None]
        else:  # images of tiny values are orthogonal only relative to the largest: their last digits, and zeros
            turn, values, vectors = torch.linalg.svd(long, full_matrices=False)
        return turn.T.to(self.basis), _host(values), vectors

    def _outcome(self, i: int, pairs: RitzPairs, converged: bool, blocks: int) -> KrylovOutcome:
        """The triplets of member i, from its Ritz pairs."""
        leading = max(self.k, min(SUBSPACE, pairs.values.size))
        further = pairs.values[self.k + 4] if pairs.values.size > self.k + 4 else math.nan
        subspace = _device(pairs.rotation[:, :leading].T, self.basis) @ self.basis[i]
        turn, values, long = self._long_vectors(i, pairs.rotation[:, : self.k])
        lengths = np.sqrt(pairs.leaks[: self.k])
        floor = max(values[0] * torch.finfo(self.products.dtype).eps, np.finfo(np.float64).tiny)
        return KrylovOutcome(
            values=values,
            short=turn @ subspace[: self.k],
            long=long.to(subspace.dtype),
            residuals=lengths / np.maximum(values, floor),
            subspace=subspace,
            converged=converged,
            blocks=blocks,
            next_value=float(np.sqrt(max(further, 0.0))),
        )


def seeded_generator(seed: int) -> torch.Generator:
    """The probes' own stream: a weight that was drawn under the same seed must not begin with these very numbers."""
    digest = hashlib.blake2b(f"spectra probes {seed}".encode(), digest_size=8).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest, "little") >> 1)


def _eigenpairs(symmetric: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Eigenvalues (B, q), descending, and eigenvectors (B, q, q) as columns."""
    values, vectors = torch.linalg.eigh(torch.from_numpy(symmetric))  # torch's threads, not numpy's
    return values.flip(-1).numpy(), vectors.flip(-1).numpy()


def _stacked(tensors: list[Tensor]) -> Tensor:
    return tensors[0][None] if len(tensors) == 1 else torch.stack(tensors)  # one alone needs no copy


def _orthonormal(rows: Tensor) -> Tensor:
    return torch.linalg.qr(rows.mT).Q.mT


def _host(tensor: Tensor) -> np.ndarray:
    return tensor.to("cpu", torch.float64).numpy()


def _device(array: np.ndarray, like: Tensor) -> Tensor:
    return torch.from_numpy(np.ascontiguousarray(array)).to(like.device, like.dtype)
