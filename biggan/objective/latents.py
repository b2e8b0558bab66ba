"""The latent distributions (Appendix E) and truncation (Section 3.1). A new one is one function, and one line in
`LATENTS` (registries.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

import numpy as np
import torch

from biggan.config import LatentConfig
from biggan.errors import UserError, check_known
from biggan.objective.registries import LATENTS

Draw = Callable[[np.random.Generator, int, int], np.ndarray]
"""Draws float32 latents (count, dim) from a generator."""


def fixed(draw: Draw) -> Callable[[LatentConfig, int | None], Draw]:
    """Make a drawing function the entry of a distribution without parameters, the same at every step."""
    return lambda config, step: draw


def _normal(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return random.standard_normal((count, dim), dtype=np.float32)


def _bernoulli(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    return random.integers(0, 2, (count, dim)).astype(np.float32)


normal = fixed(_normal)
"""N(0, I)."""

bernoulli = fixed(_bernoulli)
"""0 or 1, each with probability 1/2."""


@fixed
def symmetric_uniform(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """U[-1, 1]."""
    return 2 * random.random((count, dim), dtype=np.float32) - 1


@fixed
def censored_normal(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """max(N(0, I), 0): sparse, and positive where it is not zero."""
    return np.maximum(_normal(random, count, dim), np.float32(0))


@fixed
def signs(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """-1 or 1, each with probability 1/2."""
    return 2 * _bernoulli(random, count, dim) - 1


@fixed
def categorical(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """-1, 0 or 1, each with probability 1/3."""
    return random.integers(-1, 2, (count, dim)).astype(np.float32)


@fixed
def sparse_normal(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """N(0, I) times Bernoulli {0, 1}, entry by entry."""
    return _normal(random, count, dim) * _bernoulli(random, count, dim)


@fixed
def half_bernoulli(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """N(0, I) in the first half of the dimensions (the larger one), Bernoulli {0, 1} in the second."""
    second = dim // 2
    return np.concatenate([_normal(random, count, dim - second), _bernoulli(random, count, second)], axis=1)


def variance_at(config: LatentConfig, step: int | None) -> float:
    """The variance of `annealed_normal` at `step`: linear, then constant. `step` None: the last value."""
    done = 1.0 if step is None else min(step / config.anneal_steps, 1.0)
    return config.anneal_from + done * (config.anneal_to - config.anneal_from)


def annealed_normal(config: LatentConfig, step: int | None) -> Draw:
    """N(0, sigma I), the variance sigma falling with training (2 to 1 in the paper)."""
    scale = np.float32(np.sqrt(variance_at(config, step)))
    return lambda random, count, dim: scale * _normal(random, count, dim)


def variable_normal(config: LatentConfig, step: int | None) -> Draw:
    """N(0, sigma_i I) with a variance sigma_i ~ U[low, high] for each sample i."""

    def draw(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
        variances = random.uniform(config.variance_low, config.variance_high, (count, 1))
        return np.sqrt(variances).astype(np.float32) * _normal(random, count, dim)

    return draw


def sample_latents(
    distribution: LatentConfig | str, random: np.random.Generator, count: int, dim: int, step: int | None = None
) -> torch.Tensor:
    """`count` latents of dimension `dim`, float32, of a distribution: the configured one, or a name with the defaults.

    `step`, the number of finished G steps, matters where the distribution changes in training; None: its last form.
    Raises `UserError` for a name that is not in `LATENTS`.
    """
    config = LatentConfig(distribution) if isinstance(distribution, str) else distribution
    check_known(config.distribution, LATENTS, "latents.distribution")
    return torch.from_numpy(LATENTS[config.distribution](config, step)(random, count, dim))


def _check_threshold(threshold: float) -> None:
    if not threshold > 0:
        raise UserError(f"the truncation threshold is {threshold}, expected a number above 0 (the paper's: 0.04 to 2).")


TruncationKind = Literal["threshold", "scaled"]
"""How z is truncated at t: `threshold` draws entries beyond +-t again (Section 3.1); `scaled` is t times a normal cut
at -2 and 2, as published BigGAN-deep is sampled."""


def truncated_normal(random: np.random.Generator, count: int, dim: int, threshold: float) -> torch.Tensor:
    """N(0, I) with every entry beyond +-`threshold` drawn again until it is inside (the truncation trick, 3.1).

    Drawn by inverting the distribution function, which is the law of resampling without its unbounded loop.
    Raises `UserError` where the threshold is not positive.
    """
    from scipy.stats import truncnorm

    _check_threshold(threshold)
    shares = random.random((count, dim))
    values = truncnorm.ppf(shares, -threshold, threshold)
    return torch.from_numpy(values.astype(np.float32))


def truncated_latents(
    distribution: LatentConfig | str,
    random: np.random.Generator,
    count: int,
    dim: int,
    threshold: float,
    step: int | None = None,
    kind: TruncationKind = "threshold",
) -> torch.Tensor:
    """`sample_latents` truncated at `threshold`, for the distributions that are normal.

    Raises `UserError` for any other: truncation is a statement about a normal law (Section 3.1).
    """
    config = LatentConfig(distribution) if isinstance(distribution, str) else distribution
    _check_threshold(threshold)
    if kind == "scaled" and config.distribution in ("normal", "annealed_normal"):
        scale = 1.0 if config.distribution == "normal" else float(np.sqrt(variance_at(config, step)))
        return threshold * scale * truncated_normal(random, count, dim, 2.0)
    if config.distribution == "normal":
        return truncated_normal(random, count, dim, threshold)
    if config.distribution == "annealed_normal":
        scale = float(np.sqrt(variance_at(config, step)))
        return truncated_normal(random, count, dim, threshold / max(scale, 1e-30)) * scale
    raise UserError(
        f"truncation is for normal latents, and this generator was trained on {config.distribution} "
        f"(latents.distribution). Sample it without truncation."
    )
