"""What too few samples do to scores, and how few are refused."""

from __future__ import annotations

from collections.abc import Iterable

import torch

from biggan import rng
from biggan.errors import UserError
from biggan.evaluation.reference import Moments, Reference
from biggan.evaluation.scores import biased_scores, frechet_distance

ENOUGH = 10  # samples a feature
ALWAYS = 1000  # samples that are enough for training to begin, whatever the features; with 2,048 it warns


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


def bias_warning(real: Reference, samples: int, option: str, names: Iterable[str] | None = None) -> str | None:
    """A warning about too few samples, of which `option` says how many; None for at least ten per feature.

    It says which of the scores `names` (None: all) are biased, and how.
    """
    if samples >= ENOUGH * real.width:
        return None
    rank = " (their covariance is singular)" if samples <= real.width else ""
    biased = biased_scores(real, names).items()
    which = "; ".join(f"{how}: {', '.join(found)}" for how, found in biased)
    bias = fid_bias(real, samples)
    return (
        f"warning: {samples:,} samples are few for {real.width:,} features{rank}. Few samples bias some scores "
        f"({which}): even {samples:,} samples of the real images' own Gaussian would have a FID of {bias:.3g} instead "
        f"of 0. Compare only with scores of the same number of samples, or give {option} {ENOUGH * real.width} or more."
    )


def check_samples(real: Reference, samples: int) -> None:
    """Refuse fewer samples than a covariance takes: it needs more than there are features. From 1,000 on all are taken.

    Raises `UserError` with the least number.
    """
    least = min(ALWAYS, real.width + 1)
    if samples < least:
        raise UserError(
            f"eval.samples is {samples:,}, expected at least {least:,}: the FID takes the covariance of {real.width:,} "
            f"features, which needs more samples than features."
        )
