"""Layers whose forward uses something made of their raw weight, such as WeightNorm, and their names.

`weight` stays the raw parameter. A layer's `maps` are applied to it in order, and Spectral Normalization, where the
layer has it (spectral_norm.py), to what comes out of them. In training this happens once an update, in a `normalized`
block.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from biggan.networks.autocast import in_full_precision


class Reparametrized:
    """Mixin for a layer with a `weight` (out x ...) that may be mapped to another of its shape before it is used."""

    weight: Tensor
    maps: tuple[str, ...] = ()  # names of the submodules that map the weight, in order
    applied: Tensor | None = None  # the weight in use, inside a `normalized` block
    awaited: tuple[bool, bool] | None = None  # there: (iterate, grad), for the weight to be made at its first use

    def add_map(self, name: str, map_: nn.Module) -> None:
        """Put `map_`, called as map_(weight, iterate=...), behind the maps that the layer has."""
        self.add_module(name, map_)  # type: ignore[attr-defined]
        self.maps = (*self.maps, name)

    def use(self, applied: Tensor | None = None, awaited: tuple[bool, bool] | None = None) -> None:
        """Set `applied` and `awaited`. Neither is a parameter, a buffer or a module, so the search for those is left
        out."""
        vars(self).update(applied=applied, awaited=awaited)

    @property
    def is_mapped(self) -> bool:
        """Whether a forward uses anything else than the raw weight."""
        return bool(self.maps)

    def mapped_weight(self, *, iterate: bool = False) -> Tensor:
        """The weight behind all maps; `iterate` lets them move their state."""
        weight = self.weight
        for name in self.maps:
            weight = getattr(self, name)(weight, iterate=iterate)
        return weight

    def normalized_weight(self, *, iterate: bool = False) -> Tensor:
        """The weight that a forward uses, differentiable in the raw one."""
        return self.mapped_weight(iterate=iterate)

    def current_weight(self) -> Tensor:
        """The weight a forward uses: that of the enclosing `normalized` block, else computed here."""
        self.make_awaited()
        return self.normalized_weight() if self.applied is None else self.applied

    def make_awaited(self) -> None:
        """Inside a `normalized` block that makes weights at their first use: make this one, unless it was."""
        if self.awaited is not None:
            iterate, grad = self.awaited
            with torch.set_grad_enabled(grad), in_full_precision(self.weight):
                self.use(self.normalized_weight(iterate=iterate))


class Conv2d(Reparametrized, nn.Conv2d):
    """A convolution."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in, H, W) -> (N, out, H', W')."""
        return self._conv_forward(x, self.current_weight(), self.bias)


class Linear(Reparametrized, nn.Linear):
    """A linear layer."""

    def forward(self, x: Tensor) -> Tensor:
        """(N, in) -> (N, out)."""
        return F.linear(x, self.current_weight(), self.bias)


class WeightNorm(nn.Module):
    """WeightNorm (Salimans and Kingma, 2016): every filter has the length of its learned gain, from 1."""

    def __init__(self, filters: int) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.ones(filters))

    def forward(self, weight: Tensor, *, iterate: bool) -> Tensor:
        """gain_i w_i / |w_i| for every filter i of a weight (out x ...)."""
        matrix = weight.flatten(1)
        return (matrix * (self.gain / torch.linalg.vector_norm(matrix, dim=1))[:, None]).view_as(weight)


def in_memory_order(weight: Tensor) -> Tensor:
    """`weight` (out x ...) as a matrix (out x rest) without a copy; where channels lie innermost, its columns permuted.

    For what that does not change: norms, singular values, left singular vectors.
    """
    return weight.permute(0, 2, 3, 1).flatten(1) if is_channels_last(weight) else weight.flatten(1)


def is_channels_last(weight: Tensor) -> bool:
    """Whether channels lie innermost, and this is not the usual order as well."""
    layout = torch.channels_last
    return weight.ndim == 4 and not weight.is_contiguous() and weight.is_contiguous(memory_format=layout)


def matrix_names(network: nn.Module) -> dict[str, nn.Parameter]:
    """Layer name -> raw weight of two or more dimensions, class embeddings excepted, in network order.

    A layer with several (there is none in these networks) gets the parameter's name behind its own.
    """
    found: dict[str, nn.Parameter] = {}
    for path, module in network.named_modules():
        if isinstance(module, nn.Embedding):
            continue
        for name, parameter in module.named_parameters(recurse=False):
            if parameter.ndim >= 2:
                found[path if name == "weight" else f"{path}.{name}"] = parameter
    return found


def is_fully_mapped(network: nn.Module) -> bool:
    """Whether every weight that `matrix_names` has is mapped to another one before it is used."""
    layers = (network.get_submodule(path) for path in matrix_names(network))
    return all(isinstance(layer, Reparametrized) and layer.is_mapped for layer in layers)
