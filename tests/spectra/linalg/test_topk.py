"""The estimators against float64 LAPACK: values within their tolerance, and no convergence claimed that is none."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from matrices import KINDS, largest, make, spectrum, with_spectrum

import spectra
from spectra import top_singular_values, top_singular_values_batch
from spectra.linalg import krylov

METHODS = ("exact", "gram", "krylov", "svds")
TOLERANCES = {
    torch.float64: (1e-3, 1e-5, 1e-10),
    torch.float32: (1e-3, 1e-5),
    torch.bfloat16: (1e-5,),  # the work is done in float32
    torch.float16: (1e-5,),
}
SHAPES = [(1, 1), (1, 7), (7, 1), (2, 5), (3, 3), (17, 16), (40, 9), (24, 216), (216, 24), (130, 150)]


def relative_error(found: spectra.TopSingularValues, truth: torch.Tensor) -> float:
    return float((found.values - truth).abs().max() / truth[0].clamp_min(1e-300))


def assert_triplets(matrix: torch.Tensor, found: spectra.TopSingularValues, slack: float) -> None:
    """Orthonormal vectors that reproduce the values, and the residuals they claim."""
    scale = float(matrix.abs().max())
    double, left, right = matrix.double() / scale, found.left.double(), found.right.double()
    values, residuals = found.values / scale, found.residuals / scale
    eye = torch.eye(len(values), dtype=torch.float64)
    assert torch.allclose(left.T @ left, eye, atol=slack)
    assert torch.allclose(right.T @ right, eye, atol=slack)
    first = float(values[0])
    one = (double @ right - left * values).norm(dim=0)
    other = (double.T @ left - right * values).norm(dim=0)
    assert float((torch.maximum(one, other) - residuals).abs().max()) <= slack * first


@functools.cache
def made(kind: str, rows: int, columns: int, dtype: torch.dtype) -> tuple[torch.Tensor, torch.Tensor]:
    """A matrix, to be read only, and its three largest values."""
    matrix = make(kind, rows, columns).to(dtype)
    return matrix, largest(matrix, 3)


def assert_honest(matrix: torch.Tensor, truth: torch.Tensor, method: str, tol: float, may_fail: bool) -> None:
    found = top_singular_values(matrix, 3, method, tol)
    case = f"{tuple(matrix.shape)}, tol {tol}: {found.values.tolist()} for {truth.tolist()}"
    assert len(found.values) == len(truth), case
    assert found.finite, case
    assert found.converged or may_fail, case
    if found.converged:
        assert relative_error(found, truth) <= tol, case


@pytest.mark.parametrize("dtype", TOLERANCES, ids=str)
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("method", METHODS)
def test_values_reported_as_converged_are_within_the_tolerance(method: str, kind: str, dtype: torch.dtype) -> None:
    may_fail = method == "svds" and kind in ("repeated", "clustered")  # ARPACK may be late for one of several copies
    for rows, columns in SHAPES:
        matrix, truth = made(kind, rows, columns, dtype)
        for tol in TOLERANCES[dtype]:
            # Squares of what lies twelve orders below sigma_0 are lost in the projection: it says so.
            lost = tol < 1e-7 and method != "exact" and kind in ("graded", "rank_one")
            assert_honest(matrix, truth, method, tol, may_fail or lost)


@pytest.mark.parametrize(("rows", "columns"), [pytest.param(400, 450, marks=pytest.mark.slow), (600, 390)])
@pytest.mark.parametrize("kind", KINDS)
def test_larger_matrices(kind: str, rows: int, columns: int) -> None:
    matrix, truth = made(kind, rows, columns, torch.float32)
    for method in METHODS:
        assert_honest(matrix, truth, method, 1e-5, method == "svds" and kind in ("repeated", "clustered"))


@pytest.mark.slow
@pytest.mark.timeout(1800)
@pytest.mark.parametrize("kind", ["gaussian", "spiked", "orthogonal", "slow", "stepped"])
def test_the_largest_layer_of_biggan(kind: str) -> None:
    matrix = make(kind, 1536, 13824).float()
    triangle = torch.linalg.qr(matrix.T.double()).R  # LAPACK's own first step for so long a matrix
    truth = largest(triangle, 3)
    for method in METHODS:
        found = top_singular_values(matrix, 3, method, 1e-5)
        assert found.converged, method
        assert relative_error(found, truth) <= 1e-5, method


@given(
    rows=st.integers(1, 90),
    columns=st.integers(1, 90),
    k=st.integers(1, 6),
    method=st.sampled_from([*METHODS, "auto"]),
    double=st.booleans(),
    exponent=st.integers(-18, 18),
    values=st.lists(st.floats(0, 1, width=32), min_size=1, max_size=12),
    tail=st.floats(0, 1),
    seed=st.integers(0, 2**16),
)
@settings(max_examples=150, deadline=None, derandomize=True)
def test_any_spectrum(
    rows: int,
    columns: int,
    k: int,
    method: str,
    double: bool,
    exponent: int,
    values: list[float],
    tail: float,
    seed: int,
) -> None:
    count = min(rows, columns)
    sigma = torch.tensor((values + [tail * min(values)] * count)[:count], dtype=torch.float64)
    matrix = with_spectrum(sigma * 10.0**exponent, rows, columns, seed)
    matrix = matrix if double else matrix.float()
    truth = largest(matrix, k)
    found = top_singular_values(matrix, k, method, 1e-5, seed=seed)
    assert found.finite
    assert relative_error(found, truth) <= (1e-5 if found.converged else 1e-2)
    assert found.converged or method == "svds"


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64], ids=str)
@pytest.mark.parametrize("method", METHODS)
def test_vectors_and_residuals_belong_to_the_values(method: str, dtype: torch.dtype) -> None:
    slack = 5e-6 if dtype == torch.float32 else 1e-12
    for kind, rows, columns in [("spiked", 60, 400), ("slow", 400, 60), ("clustered", 200, 200), ("rank_one", 30, 80)]:
        matrix = make(kind, rows, columns).to(dtype)
        assert_triplets(matrix, top_singular_values(matrix, 3, method, 1e-5), slack)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("scale", [1e18, 1e-18, 1e30, 1e-30])
def test_scale_does_not_matter(method: str, scale: float) -> None:
    for dtype in (torch.float32, torch.float64):
        matrix = (make("spiked", 50, 90) * scale).to(dtype)
        found = top_singular_values(matrix, 3, method)
        assert found.converged
        assert relative_error(found, largest(matrix, 3)) <= 1e-5
        assert_triplets(matrix, found, 2e-5)
    extreme = make("spiked", 50, 90) * scale**9
    assert relative_error(top_singular_values(extreme, 3, method), largest(extreme, 3)) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("bad", [float("nan"), float("inf"), -float("inf")])
def test_what_is_not_finite_is_reported_as_such(method: str, bad: float) -> None:
    for rows, columns in [(1, 1), (20, 30), (700, 600)]:
        matrix = torch.ones(rows, columns)
        matrix[rows // 2, columns // 2] = bad
        found = top_singular_values(matrix, 3, method)
        assert not found.finite
        assert not found.converged
        assert found.values.isnan().all()
        assert len(found.values) == min(3, rows, columns)
        assert found.passes <= 2


@pytest.mark.parametrize("method", METHODS)
def test_zeros(method: str) -> None:
    found = top_singular_values(torch.zeros(30, 20), 3, method)
    assert found.values.tolist() == [0.0] * 3
    assert found.converged
    assert found.finite
    assert torch.equal(found.left.T @ found.left, torch.eye(3))
    assert torch.equal(found.right.T @ found.right, torch.eye(3))


@pytest.mark.parametrize("method", METHODS)
def test_strides_do_not_matter(method: str) -> None:
    big = make("spiked", 120, 260).float()
    for view in (big[::2, 1::3], big.T, big.T[5:].T, big[:, :1].expand(120, 30)):
        truth = largest(view, 3)
        assert relative_error(top_singular_values(view, 3, method), truth) <= 1e-5


def hidden_spectrum(count: int, hidden: float) -> torch.Tensor:
    """Three known values, a bulk, and between them values that have just appeared."""
    values = 0.6 * torch.arange(1, count + 1, dtype=torch.float64) ** -0.1
    values[:3] = torch.tensor([1.0, 0.98, 0.95])
    values[20:22] = hidden
    return values


@pytest.mark.parametrize("hidden", [0.9502, 0.96, 0.99, 1.05, 3.0])
@pytest.mark.parametrize(("rows", "columns"), [(400, 700), (700, 400), (150, 150)])
def test_a_warm_start_from_the_wrong_subspace_finds_the_true_values(rows: int, columns: int, hidden: float) -> None:
    """The vectors given are exact singular vectors of the matrix, orthogonal to the new largest ones."""
    count = min(rows, columns)
    sigma = hidden_spectrum(count, hidden)
    generator = torch.Generator().manual_seed(3)
    left = torch.linalg.qr(torch.randn(rows, count, generator=generator, dtype=torch.float64)).Q
    right = torch.linalg.qr(torch.randn(columns, count, generator=generator, dtype=torch.float64)).Q
    matrix = (left * sigma) @ right.T
    truth = sigma.sort(descending=True).values[:3]
    for dtype in (torch.float32, torch.float64):
        for start in (left[:, :3], right[:, :3], left[:, 3:11], left[:, -3:], torch.zeros(rows, 2)):
            found = top_singular_values(matrix.to(dtype), 3, "krylov", 1e-5, start=start)
            assert found.converged
            assert relative_error(found, truth) <= 1e-5


def test_a_start_from_a_fresh_initialisation_or_a_jump() -> None:
    old = make("orthogonal", 420, 900, seed=1).float()
    new = make("slow", 420, 900, seed=2).float()
    jumped = new.clone()
    jumped[7] += 1.0
    for before, after in [(old, new), (new, old), (new, jumped), (jumped, new)]:
        start = top_singular_values(before, 3, "krylov")
        found = top_singular_values(after, 3, "krylov", start=start)
        assert found.converged
        assert relative_error(found, largest(after, 3)) <= 1e-5


def test_a_small_residual_is_not_enough() -> None:
    """After one block from the exact vectors of lesser values their residuals vanish; that must not count."""
    matrix = with_spectrum(hidden_spectrum(400, 2.0), 400, 700, 0)
    u, sigma, _ = torch.linalg.svd(matrix, full_matrices=False)
    lesser = u[:, 2:5]  # those of 1, 0.98 and 0.95
    found = top_singular_values(matrix, 3, "krylov", 1e-5, start=lesser, max_blocks=1)
    assert float(found.residuals.min()) < 1e-9
    assert relative_error(found, sigma[:3]) > 0.1
    assert not found.converged


def test_a_good_start_saves_passes() -> None:
    matrix = make("slow", 500, 800).float()
    cold = top_singular_values(matrix, 3, "krylov")
    warm = top_singular_values(matrix * 1.001, 3, "krylov", start=cold)
    assert warm.passes < cold.passes


def test_giving_up_is_not_converging() -> None:
    matrix = make("slow", 500, 800).float()
    found = top_singular_values(matrix, 3, "krylov", 1e-5, max_blocks=2)
    assert not found.converged
    assert found.passes == 4
    assert bool((found.values <= largest(matrix, 3) * (1 + 1e-6)).all()), "values approach the truth from below"


def test_a_tolerance_beyond_the_precision_is_never_claimed() -> None:
    matrix = make("graded", 60, 90)
    for method in ("krylov", "exact"):
        assert not top_singular_values(matrix, 3, method, 1e-17).converged
    found = top_singular_values(matrix.float(), 3, "krylov", 1e-9)
    assert found.left.dtype == torch.float64, "a tolerance beyond float32 is computed in float64"
    assert relative_error(found, largest(matrix.float(), 3)) <= 1e-9


@pytest.mark.parametrize("kind", ["gaussian", "stepped"])
def test_restarts_keep_the_answer(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    matrix = make(kind, 400, 500)
    whole = top_singular_values(matrix, 3, "krylov", 1e-5)
    monkeypatch.setattr(krylov, "MAX_BASIS", 64)
    restarted = top_singular_values(matrix, 3, "krylov", 1e-5, max_blocks=300)
    assert whole.passes // 2 * 16 > 64, "the case must need a restart"
    assert restarted.passes >= whole.passes
    assert restarted.converged
    assert relative_error(restarted, largest(matrix, 3)) <= 1e-5
    assert_triplets(matrix, restarted, 1e-10)


@pytest.mark.parametrize("method", ["exact", "krylov"])
def test_matrices_of_like_shape_together(method: str) -> None:
    shapes = [(40, 90), (40, 90), (90, 40), (40, 90), (1, 3), (40, 90)]
    matrices = [make("slow", *shape, seed=i).float() for i, shape in enumerate(shapes)]
    matrices[3][0, 0] = float("nan")
    together = top_singular_values_batch(matrices, 3, method)
    for matrix, found in zip(matrices, together, strict=True):
        if not matrix.isfinite().all():
            assert not found.finite
            continue
        assert found.left.shape[0] == matrix.shape[0]
        assert relative_error(found, largest(matrix, 3)) <= 1e-5
        assert found.converged


def test_the_stacked_iteration_of_accelerators_gives_the_same_values() -> None:
    matrices = [make(kind, 60, 200, seed=i).float() for i, kind in enumerate(["slow", "spiked", "gaussian", "zero"])]
    matrices.append(torch.full((60, 200), float("inf")))
    starts = [None, make("gaussian", 3, 60).float(), None, None, None]
    stacked = krylov.block_krylov(matrices, 3, 1e-5, starts, 64, 0, stack=True)
    for matrix, outcome in zip(matrices[:3], stacked[:3], strict=True):
        truth = largest(matrix, 3).numpy()
        assert outcome.converged
        assert np.abs(outcome.values - truth).max() <= 1e-5 * truth[0]
    assert stacked[3].values.tolist() == [0.0] * 3
    assert np.isnan(stacked[4].values).all()


@pytest.mark.parametrize("method", METHODS)
def test_nothing_is_disturbed_and_bits_repeat(method: str) -> None:
    matrix = torch.nn.Parameter(make("slow", 120, 200).float())
    before = matrix.detach().clone()
    torch.manual_seed(5)
    np.random.seed(5)
    state, legacy = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = top_singular_values(matrix, 3, method)
    torch.manual_seed(6)
    np.random.seed(6)
    second = top_singular_values(matrix, 3, method)
    torch.manual_seed(5)
    np.random.seed(5)
    top_singular_values(matrix, 3, method)
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == legacy).all()
    assert torch.equal(matrix.detach(), before)
    assert matrix.grad is None
    assert not first.left.requires_grad
    for name in ("values", "left", "right", "residuals", "subspace"):
        assert torch.equal(getattr(first, name), getattr(second, name)), name
    other = top_singular_values(matrix, 3, method, seed=1)
    assert relative_error(other, first.values) <= 2e-5


def test_a_reflection_has_equal_values_that_lapack_returns_none_of() -> None:
    """LAPACK's subset driver comes back with no eigenvector, and no error, for some Gram matrices of reflections."""
    for number in range(100, 130):
        normal = np.random.default_rng(number).standard_normal(260)
        matrix = np.eye(260) - 2 * np.outer(normal, normal) / (normal @ normal)
        found = top_singular_values(1.7 * matrix, 3, "exact")
        assert found.converged
        assert torch.allclose(found.values, torch.full((3,), 1.7, dtype=torch.float64), rtol=1e-12)


def test_auto_chooses_by_shape_and_by_what_a_start_tells() -> None:
    spiked, plain = make("spiked", 400, 410).float(), make("gaussian", 400, 410).float()
    assert top_singular_values(make("slow", 128, 390)).method == "exact"
    assert top_singular_values(make("slow", 129, 390)).method == "gram"
    assert top_singular_values(make("slow", 900, 20)).method == "exact"
    known, none = top_singular_values(spiked), top_singular_values(plain)
    assert (known.method, none.method) == ("krylov", "gram"), "cold: by the iteration, and where it is slow by the Gram"
    assert known.gap > 0.2 > 0.06 > none.gap
    assert top_singular_values(spiked, start=known).method == "krylov"
    again = top_singular_values(plain, start=none)
    assert (again.method, again.passes) == ("gram", 3), "warm, and nothing stands out: no iteration is tried"


def test_numpy_and_many_values() -> None:
    matrix = make("slow", 90, 140)
    truth = largest(matrix, 200)
    for method in METHODS:
        for k in (1, 20, 89, 90, 200):
            found = top_singular_values(matrix.numpy(), k, method)
            assert len(found.values) == min(k, 90)
            assert found.converged
            assert relative_error(found, truth[: len(found.values)]) <= 1e-5


def test_arpack_that_misses_a_copy_is_not_believed() -> None:
    """Whatever ARPACK returns for many equal values: converged only if right."""
    values = spectrum("orthogonal", 80)
    values[40:] = 0.5
    for seed in range(5):
        matrix = with_spectrum(values, 80, 200, seed).float()
        found = top_singular_values(matrix, 3, "svds", seed=seed)
        assert not found.converged or relative_error(found, torch.ones(3, dtype=torch.float64)) <= 1e-5


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"k": 0}, "at least 1"),
        ({"k": -2}, "at least 1"),
        ({"k": 1.5}, "whole number"),
        ({"tol": 0.0}, "tol"),
        ({"tol": float("nan")}, "tol"),
        ({"method": "krilov"}, "did you mean 'krylov'"),
        ({"start": torch.ones(7, 2), "method": "krylov"}, "start"),
        ({"start": "yesterday", "method": "krylov"}, "start"),
        ({"matrix": torch.ones(3)}, "two dimensions"),
        ({"matrix": torch.ones(2, 3, 4)}, "flatten"),
        ({"matrix": torch.ones(0, 4)}, "empty"),
        ({"matrix": torch.ones(3, 4, dtype=torch.complex64)}, "complex64"),
        ({"matrix": np.ones((3, 4), complex)}, "complex128"),
        ({"matrix": torch.ones(3, 4, dtype=torch.int64)}, "int64"),
        ({"matrix": torch.ones(3, 4).to_sparse()}, "dense"),
        ({"matrix": torch.ones(3, 4, device="meta")}, "meta"),
    ],
)
def test_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        top_singular_values(**{"matrix": torch.ones(3, 4), **arguments})


def test_what_is_no_matrix_at_all() -> None:
    with pytest.raises(TypeError, match="operator"):
        top_singular_values([[1.0, 2.0]])
    with pytest.raises(ValueError, match="one \\(or None\\) for each"):
        top_singular_values_batch([torch.ones(2, 2)], starts=[])
