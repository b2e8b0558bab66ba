"""How far too few samples lift the FID."""

from __future__ import annotations

import torch

from biggan import rng
from biggan.evaluation.reference import Moments, Reference
from biggan.evaluation.scores import frechet_distance

ENOUGH = 10  # samples a feature


def fid_bias(real: Reference, samples: int, seed: int = 0) -> float:
    """The FID of `samples` draws from the Gaussian that has the reference's moments: 0 but for their number."""
    values, vectors = torch.linalg.eigh(real.moments.covariance)
    scales = values.clamp(min=0).sqrt()
    random = rng.torch_generator(seed, "bias")
    total, outer = torch.zeros_like(scales), torch.zeros_like(vectors)
    for first in range(0, samples, 4096):
        size = min(4096, samples - first)
        draws = torch.randn(size, len(scales), generator=random, dtype=torch.float64) * scales @ vectors.T
        total += draws.sum(dim=0)
        outer += draws.T @ draws
    mean = real.moments.total / real.moments.count
    centred = Moments(real.moments.count, 0 * mean, real.moments.covariance * (real.moments.count - 1))
    return frechet_distance(Moments(samples, total, outer), centred)


def bias_warning(real: Reference, samples: int) -> str | None:
    """What to say of so few samples; None for ten a feature or more."""
    if samples >= ENOUGH * real.width:
        return None
    rank = " (their covariance is singular)" if samples <= real.width else ""
    return (
        f"warning: {samples:,} samples are few for {real.width:,} features{rank}: drawn from the real images' own "
        f"Gaussian, so many would have an FID of {fid_bias(real, samples):.3g} instead of 0. Compare only with scores "
        f"of as many samples, or give --samples {ENOUGH * real.width} or more."
    )
