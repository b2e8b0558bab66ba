"""The certified Gram matrix: it must refuse what it cannot know, however it came about."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from matrices import KINDS, largest, make, with_spectrum
from torch import Tensor

from spectra import top_singular_values
from spectra.linalg import gram
from spectra.linalg.gram import certified_by_gram

SHAPES = [(150, 160), (160, 600), (600, 160)]


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("kind", KINDS)
def test_what_it_certifies_is_right(kind: str, dtype: torch.dtype) -> None:
    answers = 0
    for rows, columns in SHAPES:
        matrix = make(kind, rows, columns).to(dtype)
        truth = largest(matrix, 3).numpy()
        for tol in (1e-3, 1e-5):
            found = certified_by_gram(matrix, 3, tol, None, 0)
            if found is not None:
                answers += 1
                assert np.abs(found.values - truth).max() <= min(tol, 1e-8) * truth[0]
    if kind in ("gaussian", "spiked", "slow", "stepped"):
        assert answers == 2 * len(SHAPES), "networks' weights are its purpose"


def without_the_first(monkeypatch: pytest.MonkeyPatch, first: int) -> None:
    """ARPACK would return the eigenvectors from number `first` on, exactly."""

    def eigenvectors(matrix: Tensor, count: int, start: Tensor) -> Tensor:
        vectors = torch.linalg.eigh(matrix.double()).eigenvectors.flip(-1)
        return vectors[:, first : first + count].to(matrix)

    monkeypatch.setattr(gram, "_eigenvectors", eigenvectors)


@pytest.mark.parametrize("first", [1, 2])
@pytest.mark.parametrize("kind", ["gaussian", "spiked", "slow"])
def test_eigenvectors_that_leave_out_a_larger_value_are_refused(
    kind: str, first: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    matrix = make(kind, 160, 600).float()
    assert certified_by_gram(matrix, 3, 1e-5, None, 0) is not None
    without_the_first(monkeypatch, first)
    assert certified_by_gram(matrix, 3, 1e-5, None, 0) is None
    found = top_singular_values(matrix, 3, "gram")
    assert found.method == "exact"
    assert torch.allclose(found.values, largest(matrix, 3), rtol=1e-9)


def test_a_value_that_is_left_out_counts_from_the_tolerance_on(monkeypatch: pytest.MonkeyPatch) -> None:
    """The third and fourth values are 2 / 1 tolerances apart: without the third, the fourth is wrong / good enough."""
    tol = 1e-4
    for apart, refused in ((2.0, True), (0.5, False)):
        values = torch.tensor([1.0, 0.9, 0.8, 0.8 - apart * tol, *[0.3] * 156], dtype=torch.float64)
        matrix = with_spectrum(values, 160, 200, 0)

        def eigenvectors(matrix: Tensor, count: int, start: Tensor) -> Tensor:
            vectors = torch.linalg.eigh(matrix).eigenvectors.flip(-1)
            return torch.cat([vectors[:, :2], vectors[:, 3 : count + 1]], dim=1)

        monkeypatch.setattr(gram, "_eigenvectors", eigenvectors)
        found = certified_by_gram(matrix, 3, tol, None, 0)
        assert (found is None) == refused, apart


@pytest.mark.parametrize(("error", "refused"), [(1e-3, True), (1e-7, False)])
def test_rounding_of_the_gram_matrix_is_measured(error: float, refused: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = make("gaussian", 160, 600)
    true = gram._lower_gram

    def inexact(wide: Tensor) -> Tensor:
        exact = true(wide)
        direction = torch.zeros(len(wide), dtype=wide.dtype)
        direction[7] = 1
        return exact - error * exact.diagonal().mean() * torch.outer(direction, direction)  # hides a part of A

    monkeypatch.setattr(gram, "_lower_gram", inexact)
    assert (certified_by_gram(matrix, 3, 1e-5, None, 0) is None) == refused


def test_the_bound_on_a_norm_holds() -> None:
    generator = torch.Generator().manual_seed(0)
    for side, rank in ((50, 1), (50, 3), (50, 50)):
        for _ in range(100):
            left, right = (torch.randn(side, rank, generator=generator, dtype=torch.float64) for _ in range(2))
            matrix = left @ right.T
            probes = torch.randn(side, gram.ROUNDING_PROBES, generator=generator, dtype=torch.float64)
            norm = float(torch.linalg.matrix_norm(matrix, 2))
            assert norm <= gram.norm_bound(matrix @ probes) <= 30 * rank**0.5 * norm


def test_rounding_leaves_room_in_the_tolerance() -> None:
    for seed in range(4):
        matrix = make("gaussian", 200, 900, seed=seed).float()
        probes = torch.randn(200, gram.ROUNDING_PROBES, dtype=torch.float64)
        error = gram._lower_gram(matrix).double() - matrix.double() @ matrix.double().T
        assert gram.norm_bound(error @ probes) <= 1e-5 * float(largest(matrix, 1)) ** 2


def test_it_leaves_to_others_what_it_cannot_square_or_start() -> None:
    matrix = make("gaussian", 150, 160).float()
    for strange in (matrix * 1e-20, matrix * 1e20, torch.eye(150, 160), matrix * float("nan"), torch.zeros(150, 160)):
        assert certified_by_gram(strange, 3, 1e-5, None, 0) is None
        assert top_singular_values(strange, 3, "gram").method == "exact"


def test_a_start_that_is_wrong_or_right_changes_no_answer() -> None:
    matrix = make("slow", 160, 600).float()
    whole = torch.linalg.svd(matrix.double()).U
    truth = largest(matrix, 3).numpy()
    for columns in (whole[:, :8], whole[:, 1:9], whole[:, 40:48]):
        found = top_singular_values(matrix, 3, "gram", start=columns)
        assert found.converged
        assert np.abs(found.values.numpy() - truth).max() <= 1e-9 * truth[0]


def test_a_start_that_its_matrix_never_leaves() -> None:
    """Eight unit vectors and a diagonal matrix: of these alone ARPACK would make nothing new but by chance."""
    matrix = torch.zeros(150, 160, dtype=torch.float64)
    matrix.diagonal().copy_(torch.linspace(1, 2, 150, dtype=torch.float64))
    start = torch.eye(150, dtype=torch.float64)[:, :8]
    found = top_singular_values(matrix, 3, "gram", start=start)
    assert found.method == "gram"
    assert torch.allclose(found.values, matrix.diagonal().flip(0)[:3], rtol=1e-12)
    again = top_singular_values(matrix, 3, "gram", start=start)
    assert torch.equal(found.subspace, again.subspace)
