"""The bound by which the iteration stops, fact by fact, on matrices whose whole spectrum is known."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import chi

from spectra.certificate import Probes, is_certified, probe_threshold


@pytest.mark.parametrize("probes", [1, 2, 4, 8, 16])
@pytest.mark.parametrize("probability", [1e-2, 1e-6, 1e-12])
def test_gaussian_probes_are_rarely_that_short(probes: int, probability: float) -> None:
    below = chi(probes).cdf(probe_threshold(probes, probability))
    assert below <= probability
    assert below >= 0.1 * probability, "the threshold should not be needlessly strict"


def krylov_data(values: np.ndarray, start: np.ndarray, steps: int, probes: int) -> tuple:
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
    return ritz, rotation, np.linalg.qr(residual)[0].T @ residual, Probes(coordinates)


@pytest.mark.parametrize("decay", [0.0, 0.05, 0.3, 1.0])
@pytest.mark.parametrize("tolerance", [1e-2, 1e-4, 1e-6])
def test_a_certificate_is_never_wrong(decay: float, tolerance: float) -> None:
    certified = 0
    for seed in range(12):
        rng = np.random.default_rng(seed)
        sigma = np.sort(np.arange(1, 121.0) ** -decay * rng.uniform(0.9, 1, 120))[::-1]
        probes = rng.standard_normal((120, 6))
        for steps in range(1, 20):
            data = krylov_data(sigma**2, probes, steps, 6)
            if is_certified(*data, 3, tolerance):
                certified += 1
                assert np.all(sigma[:3] - np.sqrt(data[0][:3]) <= tolerance)
                break
    assert certified == 12, "and it is reached before the space is complete"


def test_an_unseen_direction_is_suspected_until_the_probes_exclude_it() -> None:
    """The basis holds the exact vectors of 1, 0.9, 0.8 and nothing of the 5 beside them; its probes do."""
    sigma = np.concatenate([[1.0, 0.9, 0.8, 5.0], np.full(96, 0.01)])
    rng = np.random.default_rng(0)
    start = np.hstack([np.eye(100)[:, :3], rng.standard_normal((100, 4))])
    first = krylov_data(sigma**2, start, 1, 4)
    assert np.allclose(np.sqrt(first[0][1:4]), [1.0, 0.9, 0.8], atol=0.3), "the three have long converged"
    assert not is_certified(*first, 3, 1e-3)
    later = krylov_data(sigma**2, start, 3, 4)
    assert is_certified(*later, 3, 1e-3)
    assert np.allclose(np.sqrt(later[0][:3]), [5.0, 1.0, 0.9], atol=1e-3)


def test_equal_values_are_certified_at_once() -> None:
    rng = np.random.default_rng(0)
    assert is_certified(*krylov_data(np.ones(50), rng.standard_normal((50, 8)), 1, 8), 3, 1e-5, noise=1e-15)
