"""How much the FID rises when there are too few samples."""

from __future__ import annotations

import torch

from biggan import rng
from biggan.evaluation.reference import Moments, Reference
from biggan.evaluation.scores import frechet_distance

ENOUGH = 10  # samples a feature


def fid_bias(real: Reference, samples: int, seed: int = 0) -> float:
    """The FID of `samples` draws from the Gaussian with the reference's moments. With infinitely many it would be 0."""
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
    """A warning about too few samples; None for at least ten per feature."""
    if samples >= ENOUGH * real.width:
        return None
    rank = " (their covariance is singular)" if samples <= real.width else ""
    return (
        f"warning: {samples:,} samples are few for {real.width:,} features{rank}: even {samples:,} samples of the real "
        f"images' own Gaussian would have a FID of {fid_bias(real, samples):.3g} instead of 0. Compare only with "
        "scores "
        f"of the same number of samples, or give --samples {ENOUGH * real.width} or more."
    )
