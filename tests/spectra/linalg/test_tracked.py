"""Following singular values: how near, at which cost, and never more than they claim."""

from __future__ import annotations

import pytest
import torch
from matrices import largest, make, with_spectrum
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from spectra import TopSingularValues, top_singular_values_batch
from spectra.linalg.tracked import track

SHAPES = [(40, 64), (64, 40), (64, 288), (300, 64), (10, 32), (2, 50), (1, 64), (150, 700)]


def moved(matrices: list[Tensor], step: int, size: float) -> list[Tensor]:
    """Every entry by one size, up or down: a step of Adam without a history."""
    generator = torch.Generator().manual_seed(step)
    return [w + size * torch.randn(w.shape, generator=generator).sign() for w in matrices]


def error(found: TopSingularValues, matrix: Tensor) -> float:
    truth = largest(matrix, 3)
    return float((found.values - truth).abs().max() / truth[0])


def follow(matrices: list[Tensor], steps: int, size: float) -> tuple[list[Tensor], list[TopSingularValues]]:
    """From a certified start through some steps."""
    found = top_singular_values_batch(matrices)
    for step in range(steps):
        matrices = moved(matrices, step, size)
        found = track(matrices, [one.subspace for one in found])
    return matrices, found


@pytest.mark.parametrize(("kind", "worst"), [("spiked", 1e-6), ("slow", 1e-4), ("gaussian", 1e-3)])
def test_values_stay_near_the_truth_and_below_it(kind: str, worst: float) -> None:
    matrices, found = follow([make(kind, *shape).float() for shape in SHAPES], 20, 2e-4)
    for matrix, one in zip(matrices, found, strict=True):
        truth = largest(matrix, 3)
        assert len(one.values) == min(3, *matrix.shape)
        assert error(one, matrix) <= worst, matrix.shape
        assert bool((one.values <= truth + 1e-6 * truth[0]).all()), "Ritz values come from below, but for rounding"
        assert (one.method, one.converged, one.finite, one.passes) == ("tracked", False, True, 2)


def test_vectors_and_residuals_are_those_of_the_values() -> None:
    matrices, found = follow([make("slow", *shape).float() for shape in SHAPES], 5, 2e-4)
    for matrix, one in zip(matrices, found, strict=True):
        left, right, double = one.left.double(), one.right.double(), matrix.double()
        eye = torch.eye(len(one.values), dtype=torch.float64)
        assert torch.allclose(left.T @ left, eye, atol=1e-5)
        assert torch.allclose(right.T @ right, eye, atol=1e-5)
        misfit = torch.maximum(
            (double @ right - left * one.values).norm(dim=0), (double.T @ left - right * one.values).norm(dim=0)
        )
        assert torch.allclose(misfit, one.residuals, atol=2e-6 * float(one.values[0]))


@pytest.mark.parametrize("kind", ["slow", "gaussian"])
def test_a_weight_at_rest_is_found_out(kind: str) -> None:
    """From a poor start (vectors of another matrix), as when training was wild and then stops."""
    matrix = make(kind, 64, 288).float()
    start = top_singular_values_batch([make(kind, 64, 288, seed=9).float()])[0].subspace
    errors = []
    for _ in range(18):  # without the last measurement's directions it would take 35
        (found,) = track([matrix], [start])
        start = found.subspace
        errors.append(error(found, matrix))
    assert errors[0] > 0.1
    assert errors[-1] <= 1e-6


def test_small_values_beside_a_large_one() -> None:
    values = torch.tensor([1.0, 1e-3, 1e-3 / 2, 1e-4, 1e-4, 1e-5], dtype=torch.float64)
    matrix = with_spectrum(values, 64, 288, 0).float()
    start = top_singular_values_batch([matrix])[0].subspace
    for _ in range(5):
        (found,) = track([matrix], [start])
        start = found.subspace
    assert torch.allclose(found.values, largest(matrix, 3), rtol=1e-4), "their squares are a millionth of the first"


def test_a_value_that_rises_elsewhere_is_seen_by_the_certified_alone() -> None:
    matrix = make("spiked", 64, 288).float()
    (found,) = top_singular_values_batch([matrix])
    known = torch.linalg.svd(matrix.double())
    risen = matrix + 6 * torch.outer(known.U[:, 30], known.Vh[30]).float()  # from about 1 to 7, orthogonal to all known
    (tracked,) = track([risen], [found.subspace])
    (certified,) = top_singular_values_batch([risen])
    assert float(tracked.values[0]) < 4.5 < 6.5 < float(certified.values[0])
    assert not tracked.converged


def test_two_readings_of_the_weights() -> None:
    rows, columns = 300, 4000
    matrix = make("slow", rows, columns).float()
    start = follow([matrix], 3, 2e-4)[1][0].subspace
    assert start.shape == (rows, 15)
    with FlopCounterMode(display=False) as counter:
        track([matrix], [start])
    products = 2 * rows * columns * (15 + 5)
    beside = 2 * columns * (15 * 15 + 5 * 15) + 6 * 15 * 15 * rows
    assert products <= counter.get_total_flops() <= products + beside


def test_nan_and_zero_and_half_precision() -> None:
    fine = make("slow", 40, 64).float()
    start = top_singular_values_batch([fine])[0].subspace
    broken, infinite = fine.clone(), fine.clone()
    broken[3, 4], infinite[3, 4] = float("nan"), float("inf")
    nan, fine_too, inf, zero = track([broken, fine, infinite, torch.zeros(40, 64)], [start] * 4)
    for one in (nan, inf):
        assert not one.finite
        assert bool(one.values.isnan().all())
    assert error(fine_too, fine) <= 1e-6
    assert zero.values.tolist() == [0.0] * 3
    assert not zero.converged
    (half,) = track([fine.bfloat16()], [start])
    assert error(half, fine.bfloat16().double()) <= 1e-3


def test_numbers_whose_squares_are_too_large_for_float32() -> None:
    matrix = 1e22 * make("slow", 50, 70).float()
    start = top_singular_values_batch([matrix])[0].subspace
    for _ in range(3):
        (found,) = track([matrix], [start])
        start = found.subspace
        assert found.finite
        assert error(found, matrix) <= 1e-6
        assert bool(torch.isfinite(found.residuals).all())
        assert float(found.residuals.max()) <= 1e-2 * float(found.values[0])


def test_bits_repeat_and_nothing_is_disturbed() -> None:
    matrices = [make("slow", *shape).float() for shape in SHAPES]
    before = [w.clone() for w in matrices]
    starts = [one.subspace for one in top_singular_values_batch(matrices)]
    torch.manual_seed(3)
    state = torch.get_rng_state()
    first = track(matrices, starts)
    assert torch.equal(torch.get_rng_state(), state)
    again = track(matrices, [start.clone() for start in starts])
    for one, other in zip(first, again, strict=True):
        for name in ("values", "left", "right", "residuals", "subspace"):
            assert torch.equal(getattr(one, name), getattr(other, name)), name
    assert all(torch.equal(a, b) for a, b in zip(matrices, before, strict=True))


def test_a_start_of_another_side() -> None:
    with pytest.raises(ValueError, match="40 rows for this matrix"):
        track([torch.ones(40, 64)], [torch.ones(64, 3)])
