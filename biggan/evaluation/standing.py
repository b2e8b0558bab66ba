"""Standing statistics (Appendix C.1): BatchNorm moments pooled over many forwards of fresh noise."""

from __future__ import annotations

import copy

import torch
from torch import nn

from biggan import rng
from biggan.config import LatentConfig
from biggan.generator import Generator
from biggan.latents import sample_latents
from biggan.normalization import SpectrallyNormalized, collecting, normalized, set_running_statistics

POWER_ITERATIONS = 50


@torch.no_grad()
def sampling_copy(
    G: Generator,
    *,
    distribution: LatentConfig | str,
    step: int | None = None,
    passes: int = 100,
    batch: int = 64,
    seed: int = 0,
    refresh_sigma: bool = True,
) -> Generator:
    """A copy of `G` in eval mode, its statistics those of `passes` forwards of fresh noise; `G` is left as it was.

    Means and variances are pooled exactly over all `passes` x `batch` samples, so that outputs no longer depend on
    the batch they are made in. `step`: where a distribution that changes in training stands; none: after all change.
    `refresh_sigma`: power iterations until the estimate of Spectral Normalization is that of the weights themselves,
    which averaged weights need; without it the estimate used in training stays.
    """
    network = copy.deepcopy(G).train()
    if refresh_sigma:
        converge_sigma(network)
    device = next(network.parameters()).device
    with normalized(network, iterate=False), collecting(network):
        for index in range(passes):
            random = rng.generator(seed, "standing", index)
            z = sample_latents(distribution, random, batch, network.z_dim, step).to(device)
            y = torch.from_numpy(random.integers(0, network.classes, size=batch)).to(device)
            network(z, y)
        set_running_statistics(network)
    return network.requires_grad_(False).eval()


def converge_sigma(network: nn.Module) -> None:
    """Power iterations on every spectrally normalized layer of `network`, in place, from the vectors it has."""
    for module in network.modules():
        if isinstance(module, SpectrallyNormalized):
            module.converge_sigma(POWER_ITERATIONS)
