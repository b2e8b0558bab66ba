"""The latent distributions against their definitions (Appendix E), truncation against scipy's truncnorm."""

from __future__ import annotations

import dataclasses

import numpy as np
import pytest
from scipy import stats

from biggan import rng
from biggan.config import LatentConfig
from biggan.errors import UserError
from biggan.objective.latents import LATENTS, sample_latents, truncated_normal

COUNT, DIM = 4000, 25  # 100,000 entries: a mean of variance 1 is then within 0.016 with probability 1 - 4e-7
HALF_NORMAL = 1 / np.sqrt(2 * np.pi)  # E max(N, 0)

# Name: mean, variance, fourth moment (about 0) and support of one entry; none: continuous.
MOMENTS = {
    "normal": (0, 1, 3, None),
    "uniform": (0, 1 / 3, 1 / 5, (-1, 1)),
    "bernoulli": (0.5, 0.25, 0.5, {0, 1}),
    "censored_normal": (HALF_NORMAL, 0.5 - HALF_NORMAL**2, 1.5, (0, np.inf)),
    "signs": (0, 1, 1, {-1, 1}),
    "categorical": (0, 2 / 3, 2 / 3, {-1, 0, 1}),
    "sparse_normal": (0, 0.5, 1.5, None),
    "annealed_normal": (0, 1, 3, None),
    # E v^2 of v ~ U[0.5, 1.5] is 1 + 1/12.
    "variable_normal": (0, 1, 3 * (1 + 1 / 12), None),
}


def draw(distribution: LatentConfig | str, count: int = COUNT, dim: int = DIM, step: int | None = None) -> np.ndarray:
    values = sample_latents(distribution, rng.generator(0, "test"), count, dim, step).numpy()
    assert values.dtype == np.float32
    assert values.shape == (count, dim)
    return values.astype(np.float64)


@pytest.mark.parametrize("name", MOMENTS)
def test_moments_and_supports(name: str) -> None:
    values = draw(name)
    mean, variance, fourth, support = MOMENTS[name]
    assert values.mean() == pytest.approx(mean, abs=0.016)
    assert values.var() == pytest.approx(variance, abs=0.04)
    assert (values**4).mean() == pytest.approx(fourth, rel=0.08, abs=0.005)
    if isinstance(support, set):
        assert set(np.unique(values)) == support
    elif support is not None:
        assert support[0] <= values.min()
        assert values.max() <= support[1]
    # Entries of one sample are uncorrelated.
    correlations = np.corrcoef(values.T) - np.eye(DIM)
    assert np.abs(correlations).max() < 0.09


def test_every_distribution_is_tested() -> None:
    assert set(LATENTS) == {*MOMENTS, "half_bernoulli"}


@pytest.mark.parametrize(
    ("name", "law"), [("normal", stats.norm()), ("uniform", stats.uniform(-1, 2)), ("annealed_normal", stats.norm())]
)
def test_continuous_laws(name: str, law: object) -> None:
    assert stats.kstest(draw(name).ravel(), law.cdf).pvalue > 1e-3


def test_discrete_probabilities() -> None:
    for name in ("bernoulli", "signs", "categorical"):
        _, counts = np.unique(draw(name), return_counts=True)
        assert stats.chisquare(counts).pvalue > 1e-3
    for name in ("censored_normal", "sparse_normal"):
        values = draw(name)
        assert (values == 0).mean() == pytest.approx(0.5, abs=0.008)
        assert stats.kstest(np.abs(values[values != 0]), stats.halfnorm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("dim", [24, 25])
def test_half_bernoulli_joins_both(dim: int) -> None:
    values = draw("half_bernoulli", dim=dim)
    first = dim - dim // 2
    assert stats.kstest(values[:, :first].ravel(), stats.norm.cdf).pvalue > 1e-3
    assert set(np.unique(values[:, first:])) == {0, 1}
    assert values[:, first:].mean() == pytest.approx(0.5, abs=0.01)


@pytest.mark.parametrize("name", LATENTS)
@pytest.mark.parametrize("dim", [1, 2, 8, 120])
def test_any_dimension(name: str, dim: int) -> None:
    assert np.isfinite(draw(name, count=3, dim=dim)).all()


def test_annealing_follows_its_schedule_in_steps() -> None:
    config = LatentConfig("annealed_normal", anneal_from=2.0, anneal_to=1.0, anneal_steps=100)
    unit = draw("normal")
    for step, variance in ((0, 2.0), (25, 1.75), (99, 1.01), (100, 1.0), (10**6, 1.0), (None, 1.0)):
        # The same draw, scaled: the schedule is exact.
        np.testing.assert_allclose(draw(config, step=step), np.sqrt(variance) * unit, rtol=1e-6)


def test_variance_differs_from_sample_to_sample_alone() -> None:
    config = LatentConfig("variable_normal", variance_low=0.25, variance_high=4.0)
    values = draw(config, count=1000, dim=2000)
    variances = values.var(axis=1)
    assert stats.kstest(variances, stats.uniform(0.25, 3.75).cdf).statistic < 0.05
    scaled = values / np.sqrt(variances)[:, None]
    assert stats.kstest(scaled[:, :50].ravel(), stats.norm.cdf).pvalue > 1e-3


@pytest.mark.parametrize("threshold", [0.04, 0.5, 1.0, 2.0])
def test_truncation_is_scipys_truncnorm(threshold: float) -> None:
    values = truncated_normal(rng.generator(1, "test"), COUNT, DIM, threshold).double().numpy()
    assert np.abs(values).max() <= np.float32(threshold)
    law = stats.truncnorm(-threshold, threshold)
    assert stats.kstest(values.ravel(), law.cdf).pvalue > 1e-3
    # Resampled, not clipped: no mass on the edges.
    assert (np.abs(values) > 0.999 * threshold).mean() < 0.002


def test_bad_names_and_ranges_are_explained() -> None:
    with pytest.raises(UserError, match="did you mean 'categorical'"):
        draw("categorial")
    with pytest.raises(UserError, match=r"variance_low is 2.*at most variance_high"):
        LatentConfig(variance_low=2.0)
    with pytest.raises(UserError, match="above 0"):
        truncated_normal(rng.generator(0, "test"), 1, 1, 0.0)
    assert dataclasses.asdict(LatentConfig())["distribution"] == "normal"
