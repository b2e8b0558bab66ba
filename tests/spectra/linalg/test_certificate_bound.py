"""The bound by which the iteration stops, step by step, on matrices whose whole spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.stats import chi

from spectra import top_singular_values
from spectra.linalg import krylov
from spectra.linalg.certificate import (
    Probes,
    RitzPairs,
    _ceiling,
    _levels_in_gaps,
    _may_hide,
    is_certified,
    probe_threshold,
)


@pytest.mark.parametrize("probes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("probability", [1e-2, 1e-6, 1e-12])
def test_gaussian_probes_are_rarely_that_short(probes: int, probability: float) -> None:
    below = chi(probes).cdf(probe_threshold(probes, 1, probability))
    assert below <= probability
    assert below >= 0.1 * probability, "the threshold should not be needlessly strict"


@pytest.mark.parametrize(("dimensions", "probes"), [(1, 3), (2, 2), (3, 5), (4, 12), (8, 16), (15, 16)])
@pytest.mark.parametrize("probability", [0.2, 0.02])
def test_the_smallest_singular_value_is_rarely_that_small(dimensions: int, probes: int, probability: float) -> None:
    """Against drawn matrices: at most that often, and of the right order."""
    drawn = np.random.default_rng(0).standard_normal((8_000, dimensions, probes))
    smallest = np.linalg.svd(drawn, compute_uv=False)[:, -1]
    share = float((smallest <= probe_threshold(probes, dimensions, probability)).mean())
    noise = 4 * (probability / len(drawn)) ** 0.5
    assert 0.3 * probability - noise <= share <= probability + noise


def test_more_dimensions_than_probes_have_no_bound() -> None:
    with pytest.raises(ValueError, match="5 dimensions need at least as many probes; got 4"):
        probe_threshold(4, 5)


def krylov_data(values: np.ndarray, start: np.ndarray, steps: int, probes: int) -> tuple[RitzPairs, Probes]:
    """What `is_certified` takes, for a block Krylov space of diag(values) from the start's columns, the last of them
    probes."""
    basis = last = np.linalg.qr(start)[0]
    coordinates = basis.T @ start[:, -probes:]
    for _ in range(steps - 1):
        last = values[:, None] * last
        for _ in range(2):
            left, lengths, _ = np.linalg.svd(last - basis @ (basis.T @ last), full_matrices=False)
            last = left[:, lengths > 1e-12]  # directions of an invariant subspace end here
        basis = np.hstack([basis, last])
    ritz, rotation = np.linalg.eigh(basis.T @ (values[:, None] * basis))
    ritz, rotation = ritz[::-1], rotation[:, ::-1]
    vectors = basis @ rotation
    residual = values[:, None] * vectors - vectors * ritz
    return RitzPairs(ritz, rotation, np.linalg.qr(residual)[0].T @ residual), Probes(coordinates)


def first_certified(sigma: np.ndarray, start: np.ndarray, probes: int, tolerance: float, most: int) -> np.ndarray:
    """The first three Ritz values when they are first certified; empty where they are not within so many steps."""
    for steps in range(1, most):
        pairs, known = krylov_data(sigma**2, start, steps, probes)
        if is_certified(pairs, known, 3, tolerance):
            return np.sqrt(pairs.values[:3])
    return np.array([])


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_a_certificate_is_never_wrong(decay: float, tolerance: float) -> None:
    for seed in range(4):
        rng = np.random.default_rng(seed)
        sigma = np.sort(np.arange(1, 201.0) ** -decay * rng.uniform(0.9, 1, 200))[::-1]
        found = first_certified(sigma, rng.standard_normal((200, 12)), 12, tolerance, 17)
        assert np.all(sigma[: len(found)] - found <= tolerance)
        assert len(found) == 3 or decay == 0, "and it is reached before the space is complete"


@pytest.mark.parametrize("size", [4, 8, 9, 12, 16, 17, 24, 60])
@pytest.mark.parametrize("width", [0.5, 3.0, 30.0])
def test_clusters_wider_than_the_tolerance_and_larger_than_the_probes(size: int, width: float) -> None:
    """More nearly equal values than probes, spread over some tolerances, then a gap: the Ritz vectors can take up all
    that the probes have in the cluster, and then say nothing of what is left of it."""
    tolerance = 1e-4
    for seed in range(3):
        rng = np.random.default_rng(seed)
        sigma = 0.5 * np.ones(200)
        sigma[:size] = 1 - width * tolerance * rng.uniform(0, 1, size)
        sigma[0] = 1
        sigma = np.sort(sigma)[::-1]
        found = first_certified(sigma, rng.standard_normal((200, 8)), 8, tolerance, 9)
        assert np.all(sigma[: len(found)] - found <= tolerance)


def test_a_level_in_a_gap_bounds_the_values_above_it() -> None:
    """Steps 2 and 3 against LAPACK: whatever matrix has these Ritz pairs and at most p eigenvalues above the level has
    its first eigenvalues below the targets."""
    rng = np.random.default_rng(0)
    tight, whole = 0.0, np.zeros(0)
    for _ in range(300):
        p, extra = int(rng.integers(2, 6)), 6
        theta = np.sort(rng.uniform(0.8, 1, p))[::-1]
        below = rng.uniform(0, 0.6)
        coupling = rng.standard_normal((extra, p)) * 10.0 ** rng.uniform(-4, -1)
        pairs = RitzPairs(np.append(theta, below), np.eye(p + 1), np.hstack([coupling, np.zeros((extra, 1))]))
        targets = theta[:2] + 10.0 ** rng.uniform(-5, -2)
        level = _levels_in_gaps(pairs, targets, p).get(p)
        if level is None:
            continue
        turn = np.linalg.svd(coupling)[0]  # the hidden direction to which most leaks, as high as step 1 allows
        low, high = below, level + 1.0
        for _ in range(60):
            middle = (low + high) / 2
            hidden = turn @ np.diag([middle, *[below] * (extra - 1)]) @ turn.T
            found = np.linalg.eigvalsh(np.block([[np.diag(theta), coupling.T], [coupling, hidden]]))[::-1]
            low, high = (middle, high) if found[p] <= level else (low, middle)
            whole = found if found[p] <= level else whole
        assert np.all(whole[:2] <= targets + 1e-12)
        tight = max(tight, float(((whole[:2] - theta[:2]) / (targets - theta[:2])).max()))
    assert tight > 0.1, "the case must be met, and the bound be no mere formality"


def made_pairs(values: list[float], coupling: list[float]) -> RitzPairs:
    return RitzPairs(np.array(values), np.eye(len(values)), np.array([coupling]))


def test_nothing_is_said_of_levels_below_the_ritz_values_or_of_as_many_vectors_as_probes() -> None:
    pairs = made_pairs([1.0, 0.9, 0.5, 0.1], [0.0, 0.0, 0.0, 1e-9])
    probes = Probes(np.random.default_rng(0).standard_normal((4, 3)))
    assert not _may_hide(pairs, probes, 1, 0.95)
    assert _may_hide(pairs, probes, 1, 0.85), "0.9 lies above it"
    assert _may_hide(pairs, probes, 1, 0.9), "or at it"
    assert _may_hide(pairs, probes, 3, 0.95), "three vectors may hold all that three probes have"
    assert _may_hide(pairs, probes, 4, 0.95), "and there is no fifth Ritz value"


@pytest.mark.parametrize(("strength", "hides"), [(0.5, False), (5.0, True)])
def test_levels_far_above_count_too(strength: float, hides: bool) -> None:
    """R(mu) = c / (mu - 1/2) - 2 c / mu is nothing at mu = 1, and -c / 3 at mu = 2: what cancels at the level alone
    must not pass. Up to a ceiling close to the level it remains small."""
    threshold = probe_threshold(1)
    pairs = made_pairs([0.5, 0.0], [threshold * strength, -2 * threshold * strength])
    probes = Probes(np.ones((2, 1)))
    worst = max(abs(strength / (mu - 0.5) - 2 * strength / mu) for mu in np.linspace(1, 20, 2000))
    assert (worst > 1) == hides
    assert _may_hide(pairs, probes, 0, 1.0) == hides
    assert not _may_hide(pairs, probes, 0, 1.0, ceiling=1.01)


def test_the_ceiling_is_the_lowest_multiple_that_the_probes_allow() -> None:
    threshold = probe_threshold(1)
    for gap, expected in [(2e-4, 2.006), (2e-2, 2.06), (0.2, 2.6), (20.0, np.inf)]:
        pairs = made_pairs([2.0, 0.0], [gap * threshold, 0.0])
        assert _ceiling(pairs, Probes(np.ones((2, 1)))) == expected


def test_a_failure_of_probability_is_as_rare_as_it_says() -> None:
    """One probe and one Ritz vector: the bound is |e f| / (z - theta), against the Gaussian's own distribution."""
    threshold = chi(1).ppf(1e-6)
    probes = Probes(np.ones((2, 1)))
    for share, hides in [(0.99, False), (1.01, True)]:
        assert _may_hide(made_pairs([1.0, 0.0], [share * threshold * 0.25, 0.0]), probes, 0, 1.25) == hides


def test_an_unseen_direction_is_suspected_until_the_probes_exclude_it() -> None:
    """The basis holds the exact vectors of 1, 0.9, 0.8 and nothing of the 5 beside them; its probes do."""
    sigma = np.concatenate([[1.0, 0.9, 0.8, 5.0], np.full(96, 0.01)])
    rng = np.random.default_rng(0)
    start = np.hstack([np.eye(100)[:, :3], rng.standard_normal((100, 6))])
    pairs, probes = krylov_data(sigma**2, start, 1, 6)
    assert np.allclose(np.sqrt(pairs.values[1:4]), [1.0, 0.9, 0.8], atol=0.3), "the three have long converged"
    assert not is_certified(pairs, probes, 3, 1e-3)
    pairs, probes = krylov_data(sigma**2, start, 3, 6)
    assert is_certified(pairs, probes, 3, 1e-3)
    assert np.allclose(np.sqrt(pairs.values[:3]), [5.0, 1.0, 0.9], atol=1e-3)


def test_equal_values_are_certified_at_once() -> None:
    rng = np.random.default_rng(0)
    assert is_certified(*krylov_data(np.ones(50), rng.standard_normal((50, 8)), 1, 8), 3, 1e-5)


def half_dead_after_a_step() -> torch.Tensor:
    """Orthogonal initialization, half of its outputs dead, after one step of sign-like updates."""
    random = torch.Generator().manual_seed(0)
    weight = torch.nn.init.orthogonal_(torch.empty(512, 1152), generator=random)
    weight[256:] = 0
    weight[:256] += 3e-5 * torch.randn(256, 1152, generator=random).sign()
    return weight


@pytest.mark.parametrize("method", ["auto", "krylov", "svds"])
def test_a_layer_half_of_whose_outputs_are_dead(method: str) -> None:
    weight = half_dead_after_a_step()
    truth = torch.linalg.svdvals(weight.double())[:3]
    found = top_singular_values(weight, method=method)
    assert found.converged or method == "svds"
    if found.converged:
        assert float((found.values - truth).abs().max()) <= 1e-5 * float(truth[0])


def test_probes_are_kept_through_restarts(monkeypatch: pytest.MonkeyPatch) -> None:
    """A large value that the start does not know, orthogonal to vectors that are given exactly, while the basis
    restarts again and again: forgetting the probes' coordinates would let it pass."""
    monkeypatch.setattr(krylov, "MAX_BASIS", 64)
    random = np.random.default_rng(3)
    sigma = 1 - 0.2 * np.arange(300) / 300
    sigma[40] = 1.0004
    left, right = (np.linalg.qr(random.standard_normal((side, 300)))[0] for side in (300, 320))
    matrix = torch.from_numpy((left * sigma) @ right.T)
    seen: list[RitzPairs] = []

    def spy(pairs: RitzPairs, probes: Probes, k: int, tolerance: float) -> bool:
        """Holds the probes' coordinates against what they are for each exact eigenvector."""
        vectors, values = left @ np.eye(300)[:, 40:41], sigma[40] ** 2
        if probes.restarted and values > pairs.values[0]:
            coordinates = probes.in_ritz_basis(pairs.rotation, float(values))
            assert coordinates is not None
            basis = iterations[-1].basis[0].numpy()
            ritz_vectors = basis[: len(pairs.rotation)].T @ pairs.rotation
            told = vectors.T @ ritz_vectors @ coordinates
            assert np.allclose(told, vectors.T @ first_probes[-1].T, atol=1e-6)
            seen.append(pairs)
        return is_certified(pairs, probes, k, tolerance)

    iterations: list[krylov._Iteration] = []
    first_probes: list[np.ndarray] = []
    begin, gaussian = krylov._Iteration._begin, krylov._Iteration._gaussian

    def noted(self: krylov._Iteration, given: torch.Tensor | None) -> None:
        iterations.append(self)
        begin(self, given)

    def drawn(self: krylov._Iteration, rows: int) -> torch.Tensor:
        probes = gaussian(self, rows)
        if not first_probes:
            first_probes.append(probes[0].numpy().copy())
        return probes

    monkeypatch.setattr(krylov._Iteration, "_begin", noted)
    monkeypatch.setattr(krylov._Iteration, "_gaussian", drawn)
    monkeypatch.setattr(krylov, "is_certified", spy)
    start = torch.from_numpy(left[:, [0, 1, 2]].copy())
    found = top_singular_values(matrix, 3, "krylov", 1e-6, start=start, max_blocks=60)
    assert seen, "the case must meet a restart before the value is found"
    truth = np.sort(sigma)[::-1][:3]
    assert not found.converged or np.abs(found.values.numpy() - truth).max() <= 1e-6 * truth[0]


def test_probes_are_no_weights_drawn_under_the_same_seed() -> None:
    """A weight drawn by torch under seed 0 begins with the numbers that a naive generator of the probes would draw."""
    probes = krylov._Iteration(krylov.Products([torch.zeros(20, 30)]), 3, 1e-5, 4, 0, 12, 8)._gaussian(12)
    weight = torch.randn(12, 20, generator=torch.Generator().manual_seed(0))
    assert float((probes[0] * weight).mean().abs()) < 0.3
    assert not torch.equal(probes[0], weight)
