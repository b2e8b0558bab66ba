"""Clamping of sigma_0 (Section 4.1, eq. 4): within the forward, or as a projection after each update."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from biggan.config.tree import ClampConfig
from biggan.networks.reparametrization import chosen_layers
from biggan.networks.singular import sigma_and_target, start_shape, top_two
from biggan.networks.warm_starts import WarmStarts


class Clamp(nn.Module):
    """W - max(0, s0 - c) u0 v0^T (eq. 4), c a number or r * sg(s1).

    u0, v0 and c are constants to the gradient, as u and v are in Spectral Normalization: where s0 > c, the gradient
    loses its part along u0 v0^T. `start` holds the vectors from which the next computation starts.
    """

    start: Tensor

    def __init__(self, weight: Tensor, config: ClampConfig) -> None:
        super().__init__()
        self.value, self.ratio = config.value, config.ratio
        self.register_buffer("start", torch.eye(*start_shape(weight.flatten(1))))  # initialize() draws it

    def forward(self, weight: Tensor, *, iterate: bool) -> Tensor:
        """The clamped weight, of the same shape; `iterate` moves `start`."""
        matrix = weight.flatten(1)
        (found,) = top_two([matrix], [self.start])
        if iterate:
            with torch.no_grad():
                self.start.copy_(found.short)
        sigma, target = sigma_and_target(matrix, found, self.value, self.ratio)
        u, v = found.left[:, 0], found.right[:, 0]
        return weight - ((sigma - target).relu() * torch.outer(u, v)).view_as(weight)


def clamp_layers(network: nn.Module, config: ClampConfig, where: str) -> None:
    """Put a `Clamp` on the layers that `config` names, in mode `forward`; nothing in the other or without a target.

    Raises `UserError` for an unknown layer.
    """
    if not config.on or config.mode != "forward":
        return
    for name in chosen_layers(network, config.layers, ratio=config.ratio, where=where):
        layer = network.get_submodule(name)
        layer.add_map("clamp", Clamp(layer.weight, config))  # type: ignore[operator]


@torch.no_grad()
def project(network: nn.Module, name: str, config: ClampConfig, starts: WarmStarts) -> None:
    """Clamp the raw weights of network "G" or "D" in place, in mode `project`; nothing in the other."""
    if not config.on or config.mode != "project":
        return
    layers = chosen_layers(network, config.layers, ratio=config.ratio, where=f"model.clamp_{name}")
    for path, found in starts.top_two(name, layers).items():
        weight = layers[path]
        sigma, target = sigma_and_target(weight.flatten(1), found, config.value, config.ratio)
        weight.sub_(((sigma - target).relu() * torch.outer(found.left[:, 0], found.right[:, 0])).view_as(weight))
