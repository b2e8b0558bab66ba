"""Initial weights, each drawn under its own name, so that a change of one layer leaves the others' alone."""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional as F

from biggan import rng
from biggan.networks.spectral_norm import SpectrallyNormalized


@torch.no_grad()
def initialize(network: nn.Module, kind: str, seed: int, name: str) -> None:
    """Draw every weight of `network` of two or more dimensions; biases become zero, one-dimensional gains stay.

    `kind` is "orthogonal" (on the out x rest matrix; Saxe et al., 2014), "normal" (N(0, 0.02)) or "xavier"
    (uniform; Glorot and Bengio, 2010). `name` is the network's. Spectral Normalization's vectors are drawn too.
    """
    for path, module in network.named_modules():
        for parameter_name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                _draw(parameter, kind, rng.torch_generator(seed, f"init/{name}.{path}.{parameter_name}"))
            elif parameter_name == "bias":
                parameter.zero_()
    draw_vectors(network, seed, name)


def draw_vectors(network: nn.Module, seed: int, name: str) -> None:
    """Draw the vectors from which Spectral Normalization's and clamping's estimates start."""
    for path, module in network.named_modules():
        if isinstance(module, SpectrallyNormalized):
            draw_unit_vectors(module.u, seed, f"{name}.{path}.u")
        if isinstance(getattr(module, "start", None), torch.Tensor):  # of an estimate of singular vectors
            draw_unit_vectors(module.start, seed, f"{name}.{path}.start")


@torch.no_grad()
def draw_unit_vectors(vectors: torch.Tensor, seed: int, name: str) -> None:
    """Fill a vector, or a matrix of columns, with random unit vectors: where an estimate of singular vectors starts."""
    random = rng.generator(seed, f"init/{name}")
    draw = torch.from_numpy(random.standard_normal(tuple(vectors.shape))).to(vectors.dtype)
    vectors.copy_(F.normalize(draw, dim=0))


def _draw(weight: nn.Parameter, kind: str, random: torch.Generator) -> None:
    if kind == "orthogonal":
        nn.init.orthogonal_(weight, generator=random)
    elif kind == "normal":
        nn.init.normal_(weight, 0.0, 0.02, generator=random)
    else:
        nn.init.xavier_uniform_(weight, generator=random)
