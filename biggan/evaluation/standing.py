"""Standing statistics (Appendix C.1): BatchNorm moments pooled over many forwards of fresh noise."""

from __future__ import annotations

import copy

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan import rng
from biggan.config import LatentConfig
from biggan.networks.base import GeneratorNetwork
from biggan.networks.batchnorm import collecting, set_running_statistics
from biggan.networks.spectral_norm import SpectrallyNormalized, normalized
from biggan.objective.latents import sample_latents

POWER_ITERATIONS = 50
_SMALL = 384  # up to this shorter side the singular vector is computed, which is faster than iterating


@torch.no_grad()
def sampling_copy(
    G: GeneratorNetwork,
    *,
    distribution: LatentConfig | str,
    step: int | None = None,
    passes: int = 100,
    batch: int = 64,
    seed: int = 0,
    refresh_sigma: bool = True,
) -> GeneratorNetwork:
    """A copy of `G` in eval mode, its statistics those of `passes` forwards of fresh noise; `G` is left as it was.

    Means and variances are pooled exactly over all `passes` x `batch` samples, so that outputs no longer depend on
    the batch they are made in. `step`: the step for a distribution that changes during training; None: its final form.
    `refresh_sigma`: power iterations until the estimate of Spectral Normalization is that of the weights themselves,
    which averaged weights need; without it the estimate used in training stays.
    """
    network = copy.deepcopy(G).train()
    if refresh_sigma:
        converge_sigma(network)
    device = next(network.parameters()).device
    if device.type == "cpu":
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    with normalized(network, iterate=False), collecting(network):
        for index in range(passes):
            random = rng.generator(seed, "standing", index)
            z = sample_latents(distribution, random, batch, network.z_dim, step).to(device)
            y = torch.from_numpy(random.integers(0, network.classes, size=batch)).to(device)
            network(z, y)
        set_running_statistics(network)
    return network.requires_grad_(False).eval()


@torch.no_grad()
def converge_sigma(network: nn.Module) -> None:
    """Give every spectrally normalized layer the top singular vector of its weight as it is now, in place.

    Large ones by power iterations from the vectors that they have.
    """
    for module in network.modules():
        if not isinstance(module, SpectrallyNormalized):
            continue
        matrix = module.mapped_weight().flatten(1)
        if min(matrix.shape) > _SMALL or not bool(torch.isfinite(matrix).all()):
            module.converge_sigma(POWER_ITERATIONS)
        else:
            module.u.copy_(top_left_vector(matrix))


def top_left_vector(matrix: Tensor) -> Tensor:
    """The left singular vector (out,) of the largest singular value of a matrix (out, rest), by its float64 Gram."""
    matrix = matrix.double()
    wide = matrix.shape[0] <= matrix.shape[1]
    vector = torch.linalg.eigh(matrix @ matrix.T if wide else matrix.T @ matrix).eigenvectors[:, -1]
    return F.normalize(vector if wide else matrix @ vector, dim=0).float()
