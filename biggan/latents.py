"""The latent distributions (Appendix E) and truncation (Section 3.1). A new one is one function in `LATENTS`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import torch

from biggan.errors import UserError, check_known

Sampler = Callable[[np.random.Generator, int, int], np.ndarray]


def normal(random: np.random.Generator, count: int, dim: int) -> np.ndarray:
    """N(0, I)."""
    return random.standard_normal((count, dim), dtype=np.float32)


LATENTS: dict[str, Sampler] = {"normal": normal}


def sample_latents(distribution: str, random: np.random.Generator, count: int, dim: int) -> torch.Tensor:
    """`count` latents of dimension `dim`, float32, from the distribution of that name.

    Raises `UserError` for a name that is not in `LATENTS`.
    """
    check_known(distribution, LATENTS, "latents.distribution")
    return torch.from_numpy(LATENTS[distribution](random, count, dim))


def truncated_normal(random: np.random.Generator, count: int, dim: int, threshold: float) -> torch.Tensor:
    """N(0, I) with every entry beyond +-`threshold` drawn again until it is inside (the truncation trick, 3.1).

    Drawn by inverting the distribution function, which is the law of resampling without its unbounded loop.
    Raises `UserError` where the threshold is not positive.
    """
    from scipy.stats import truncnorm

    if not threshold > 0:
        raise UserError(f"the truncation threshold is {threshold}, expected a number above 0 (the paper's: 0.04 to 2).")
    uniform = random.random((count, dim))
    values = truncnorm.ppf(uniform, -threshold, threshold)
    return torch.from_numpy(values.astype(np.float32))
