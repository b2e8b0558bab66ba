"""The latents' laws."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

from biggan import rng
from biggan.errors import UserError
from biggan.latents import sample_latents, truncated_normal


def test_normal_latents() -> None:
    z = sample_latents("normal", rng.generator(0, "test"), 5000, 8).numpy().ravel()
    assert stats.kstest(z, "norm").pvalue > 1e-3


@pytest.mark.parametrize("threshold", [0.04, 0.5, 2.0, 30.0])
def test_truncation_is_the_law_of_resampling(threshold: float) -> None:
    z = truncated_normal(rng.generator(0, "test"), 5000, 8, threshold).numpy().ravel()
    assert np.abs(z).max() <= threshold
    assert stats.kstest(z, stats.truncnorm(-threshold, threshold).cdf).pvalue > 1e-3


def test_a_threshold_must_be_positive() -> None:
    with pytest.raises(UserError, match="above 0"):
        truncated_normal(rng.generator(0, "test"), 1, 1, 0.0)


def test_generators_differ_by_each_of_their_keys() -> None:
    draws = {
        rng.generator(*key).integers(2**63)
        for key in [(0, "a", 0, 0), (1, "a", 0, 0), (0, "b", 0, 0), (0, "a", 1, 0), (0, "a", 0, 1)]
    }
    assert len(draws) == 5
    assert rng.generator(0, "a", 3, 1).integers(2**63) == rng.generator(0, "a", 3, 1).integers(2**63)
