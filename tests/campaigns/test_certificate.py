"""Is a value that is reported as converged ever wrong? Thousands of matrices on which an iteration could be misled.

    pytest -m campaign -n 0 -s tests/campaigns/test_certificate.py   # all; --cases 300 for a slice

prints a table: kind of spectrum x method x tolerance, how many cases, how many converged, the worst error over the
tolerance among these, and the violations, of which there must be none. The truth is LAPACK's in float64.
"""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
import pytest
import torch

from spectra import TopSingularValues, top_singular_values

MATRICES = 3000
TOLERANCES = (1e-3, 1e-4, 1e-5, 1e-6)
SHAPES = ((97, 130), (260, 260), (400, 450), (420, 1000), (700, 450))
CLUSTERS = (2, 3, 4, 6, 8, 10, 12, 14, 15, 16, 17, 20, 24, 32, 48, 64, 128)
WIDTHS = (0.03, 0.3, 0.8, 1.5, 3.0, 10.0, 30.0, 100.0)  # in tolerances
KINDS = ("cluster", "edge", "two_clusters", "power", "orthogonal", "stepped", "pruned", "graded", "gaussian", "spiked")


@dataclass(frozen=True)
class Case:
    """One matrix with its exact singular values before rounding to its type, and its left singular vectors."""

    kind: str
    matrix: torch.Tensor
    left: np.ndarray


def spectrum(kind: str, count: int, tol: float, random: np.random.Generator) -> np.ndarray:
    """Singular values, descending."""
    bulk = random.uniform(0.2, 0.95) * np.arange(1, count + 1.0) ** -random.uniform(0, 0.5)
    size = min(int(random.choice(CLUSTERS)), count - 1)
    width = tol * random.choice(WIDTHS)
    if kind == "cluster":
        bulk[:size] = 1 - width * random.uniform(0, 1, size)
    elif kind == "edge":  # values thin out towards the top, as at the edge of a semicircle
        bulk[:size] = 1 - width * random.uniform(0, 1, size) ** (2 / 3)
    elif kind == "two_clusters":
        half = max(size // 2, 1)
        bulk[:half] = 1 - width * random.uniform(0, 1, half)
        bulk[half:size] = 1 - random.choice([2, 10, 100]) * tol - width * random.uniform(0, 1, size - half)
    elif kind == "power":
        bulk = np.arange(1, count + 1.0) ** -random.choice([0.003, 0.01, 0.03, 0.1, 0.3, 1.0])
    elif kind == "orthogonal":
        bulk[:] = 1
        bulk[int(count * random.uniform(0.05, 1)) :] = 0  # the rest is dead
    elif kind == "graded":
        bulk = 10.0 ** (-np.arange(count) * random.choice([0.02, 0.1, 0.5]))
    elif kind == "spiked":
        bulk[: min(3, count)] = np.array([4.0, 3.0, 2.5])[: min(3, count)]
    return np.sort(np.maximum(bulk, 0))[::-1]


def reflected(matrix: np.ndarray, random: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """The matrix between two random reflections, and the left one."""
    for axis in (0, 1):
        normal = random.standard_normal(matrix.shape[axis])
        normal /= np.linalg.norm(normal)
        if axis == 0:
            left = np.eye(len(normal)) - 2 * np.outer(normal, normal)
            matrix = left @ matrix if matrix.shape[0] < 200 else matrix - 2 * np.outer(normal, normal @ matrix)
        else:
            matrix = matrix - 2 * np.outer(matrix @ normal, normal)
    return matrix, left


def make(kind: str, tol: float, random: np.random.Generator) -> Case:
    """A matrix of a kind. Probes have no preferred direction, so reflections do for singular vectors."""
    rows, columns = SHAPES[random.integers(len(SHAPES))]
    count = min(rows, columns)
    noise = random.standard_normal((rows, columns))
    if kind == "gaussian":
        matrix, left = noise / max(rows, columns) ** 0.5, np.eye(rows)
    else:
        values = spectrum("orthogonal" if kind == "pruned" else kind, count, tol, random)
        if kind == "stepped":
            values = np.ones(count)
        matrix = np.zeros((rows, columns))
        matrix[np.arange(count), np.arange(count)] = values
        matrix, left = reflected(matrix, random)
    if kind in ("stepped", "pruned"):  # one step of sign-like updates, of any size
        size = 10.0 ** random.uniform(-7, -2)
        dead = np.arange(rows) >= rows * (random.uniform(0.3, 0.9) if kind == "pruned" else 1)
        matrix = np.where(dead[:, None], 0, matrix + size * np.sign(noise))
    dtype = torch.float64 if random.uniform() < 0.3 else torch.float32
    return Case(kind, torch.from_numpy(matrix).to(dtype), left)


def starts(case: Case, random: np.random.Generator) -> Iterator[tuple[str, object]]:
    """Cold, warm, and with vectors that know some values exactly and nothing of others."""
    yield "cold", None
    moved = case.matrix + 1e-5 * case.matrix.abs().max() * torch.randn(
        case.matrix.shape, generator=torch.Generator().manual_seed(int(random.integers(2**31)))
    ).to(case.matrix)
    yield "warm", top_singular_values(moved, 3, "krylov", 1e-3)
    first = int(random.choice([1, 2, 3, 5, 9]))
    yield "adversarial", torch.from_numpy(case.left[:, first : first + 8].copy()).to(case.matrix)


def cases(count: int, seed: int) -> Iterator[tuple[Case, float, str, TopSingularValues]]:
    """`count` matrices, and on each some methods and starts: case, tol, method and start, result."""
    for number in range(count):
        kind = KINDS[number % len(KINDS)]
        random = np.random.default_rng([seed, zlib.crc32(kind.encode()), number])
        tol = TOLERANCES[(number // len(KINDS)) % len(TOLERANCES)]
        case = make(kind, tol, random)
        for start, given in starts(case, random):
            for method in ("krylov", "gram") + (("auto",) if start == "warm" else ()):
                result = top_singular_values(case.matrix, 3, method, tol, start=given, seed=number)
                yield case, tol, f"{method} {start}", result
        for method in ("auto", "exact") if number % 3 else ("svds",):
            yield case, tol, method, top_singular_values(case.matrix, 3, method, tol, seed=number)


def run(count: int, seed: int) -> dict[tuple[str, str, float], list[float]]:
    """The errors in tolerances by (kind, method and start, tol); NaN where a result says that it did not converge."""
    found: dict[tuple[str, str, float], list[float]] = {}
    last: Case | None = None
    for case, tol, method, result in cases(count, seed):
        if case is not last:
            truth, last = torch.linalg.svdvals(case.matrix.double())[:3], case
        error = float((result.values - truth).abs().max() / truth[0] / tol)
        key = (case.kind, method, tol)
        found.setdefault(key, []).append(error if result.converged else float("nan"))
    return found


def table(found: dict[tuple[str, str, float], list[float]]) -> str:
    """One line a kind and method: cases, converged, worst error over tolerance, violations; for each tolerance."""
    lines = [f"{'kind':13}{'method':20}" + "".join(f"{f'tol {tol:g}: n conv worst bad':>30}" for tol in TOLERANCES)]
    for kind, method in sorted({key[:2] for key in found}):
        cells = []
        for tol in TOLERANCES:
            errors = np.array(found.get((kind, method, tol), []))
            known = errors[~np.isnan(errors)]
            worst = f"{known.max():.3f}" if len(known) else "-"
            cells.append(f"{f'{len(errors)} {len(known)} {worst} {int((known > 1).sum())}':>30}")
        lines.append(f"{kind:13}{method:20}" + "".join(cells))
    errors = np.concatenate([np.array(e) for e in found.values()])
    known = errors[~np.isnan(errors)]
    lines.append(f"{len(errors)} results, {len(known)} converged, {int((known > 1).sum())} violations")
    return "\n".join(lines)


@pytest.mark.campaign
@pytest.mark.timeout(7200)
def test_no_value_is_wrong_that_is_called_converged(request: pytest.FixtureRequest) -> None:
    found = run(request.config.getoption("--cases") or MATRICES, seed=1)
    print("\n" + table(found))
    assert not [(key, e) for key, errors in found.items() for e in errors if e > 1]


def test_a_slice_of_the_campaign() -> None:
    found = run(10, seed=2)
    assert not [(key, e) for key, errors in found.items() for e in errors if e > 1]
    converged = [
        e == e for key, errors in found.items() for e in errors if key[1].split()[0] in ("auto", "exact", "gram")
    ]
    assert all(converged), "and these always answer for matrices of this size"
